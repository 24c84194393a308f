"""The engine of backtests: recorded or generated markets through all decisions in one compiled loop."""
