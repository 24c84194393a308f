"""Learning off the hot path: data sets, labels, splits, training, evaluation, and the registry of models on disk."""
