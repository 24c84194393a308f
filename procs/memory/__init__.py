"""What the processes share: the board, the segments of a pipeline, arenas."""
