"""Output types: how to ask for one, check it, and read it while it is being written."""
