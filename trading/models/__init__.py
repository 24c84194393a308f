"""Learned models, evaluated from flat arrays in compiled code."""
