"""WHAT to decide: numpy and compiled functions over plain arrays; no clock, no I/O, no process."""
