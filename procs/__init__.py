"""WHO runs it: topology, stages, supervisor, and the command line `scalperctl`."""
