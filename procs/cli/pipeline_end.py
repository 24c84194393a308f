"""What an ended pipeline must not have left: segments."""

from __future__ import annotations

from shm import cleanup


def leftovers(instance: str) -> list[str]:
    """Segments of an instance that has ended, a clause each."""
    return [
        f"segment {segment.name} was left behind: `scalperctl clean` removes it" for segment in cleanup.list_segments(instance)
    ]
