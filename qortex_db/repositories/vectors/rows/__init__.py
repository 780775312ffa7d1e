"""The rows of a table of vectors: records, their columns, what is in them."""
