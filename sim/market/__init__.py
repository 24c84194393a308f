"""The embedded market: seeded random order flow as frames of the wire."""
