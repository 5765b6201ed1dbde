"""Output types: the spec of one, and typed output while it is still being written."""
