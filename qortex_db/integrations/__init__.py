"""Adapters of other frameworks, each behind its extra."""
