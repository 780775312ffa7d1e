"""Rows in tables of PostgreSQL that others made."""
