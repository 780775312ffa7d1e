"""What values of Python's are in keys, columns and JSON."""
