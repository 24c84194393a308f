"""Benchmarks: each module has `run(...) -> dict` and `format(result) -> str`; all figures come from the run that prints them."""
