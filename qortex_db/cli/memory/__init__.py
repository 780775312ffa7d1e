"""The commands about arms, factors and edges."""
