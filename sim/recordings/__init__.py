"""Recordings made ready for replay."""
