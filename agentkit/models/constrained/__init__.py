"""Tool calls for servers that only enforce a JSON Schema."""
