"""What came of it: figures of merit, marks, round trips."""
