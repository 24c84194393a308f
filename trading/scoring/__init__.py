"""From features to one score: the single pass over a record, the ensemble, the gates."""
