"""The simulated exchange: queues, matching, latency."""
