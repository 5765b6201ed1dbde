"""The pure core: addresses, effects, what the loop decides by, and the loop itself.

Nothing here awaits, reads a clock, or knows a server; import-linter holds it to that.
`agentkit.core.effects` is public, for authors of middleware.
"""
