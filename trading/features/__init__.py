"""What a market record says: features and signals, kept as state in flat arrays."""
