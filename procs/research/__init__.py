"""For research: columns, trials of signals, backtests."""
