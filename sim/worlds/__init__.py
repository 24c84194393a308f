"""Small worlds to test a strategy in; docs/testing-a-strategy.md shows how."""
