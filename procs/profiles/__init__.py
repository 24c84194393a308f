"""Profiles: strict YAML, and every setting."""
