"""Performs a run: assembles an agent, drives its loop, runs its tools, builds its result."""
