"""Ready-made tools, written with nothing but the public API of agentkit."""
