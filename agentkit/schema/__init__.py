"""JSON Schema and JSON text, without Python functions: walk, strict form, repair, shorthand."""
