"""The user's own signals: how they are called, and what guards the pipeline against them."""
