"""The commands about the schema."""
