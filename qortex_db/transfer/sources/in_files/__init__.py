"""Rows in files, found by reading all of them."""
