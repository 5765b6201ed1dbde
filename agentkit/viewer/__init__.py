"""Pages that show a run in a browser."""
