"""How a stage runs as a fold: merge, checkpoint, block, loop, warm-up."""
