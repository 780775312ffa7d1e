"""The arms of bandits: read, changed by one statement, and their history."""
