"""A world to run in: recordings, an embedded market, a simulated exchange. No processes, no clocks, no rings."""
