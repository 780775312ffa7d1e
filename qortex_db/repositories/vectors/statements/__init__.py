"""Statements on a table of vectors, built once."""
