"""The ways that a statement goes: by itself, in a session, under settings of its own."""
