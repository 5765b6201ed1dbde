"""JSON Schema and JSON text, without Python functions: walk, make strict, repair, shorten."""
