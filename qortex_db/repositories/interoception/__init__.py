"""Factors and edges: what feedback says of nodes and of pairs."""
