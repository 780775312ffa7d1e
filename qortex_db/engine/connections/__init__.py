"""Connections: made, pooled, lent, cleaned up."""
