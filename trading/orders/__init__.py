"""Orders on their way: their table, their fills, their routing."""
