"""WHO runs it: topology, stages, supervisor, and the command line `scalperctl`."""

from procs.origin import refuse_intruders

refuse_intruders()
