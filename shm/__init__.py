"""Where bytes live: named segments, their layout and owners, NUMA placement, histograms.

Nothing is imported here on purpose: a tool that only lists segments must not pay for loading numba.
`shm` knows nothing of rings, trading or processes; it hands out memory and says who holds it.
"""
