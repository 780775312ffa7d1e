"""Searches: what compares vectors, and the statements that do it."""
