"""Runs that outlive their process: resumed from traces, or hosted by a durable engine."""
