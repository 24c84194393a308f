"""Recordings at rest: what lies in a folder, whether it is right, and what else can be made of it."""
