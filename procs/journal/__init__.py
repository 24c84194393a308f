"""Journals on disk, and what is read out of them."""
