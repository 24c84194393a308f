"""Quoting rules: where to place bid and ask."""
