"""The report on a run: computed, modelled, laid out as text."""
