"""HOW indices move: atomics, the slot-sequence ring, wait strategies. Knows bytes and words, nothing of trading."""
