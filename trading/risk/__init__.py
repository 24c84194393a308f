"""What may be sent: positions, limits, sizes, exits, and the fold that asks them all."""
