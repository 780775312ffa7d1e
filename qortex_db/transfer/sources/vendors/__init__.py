"""Other vector databases, by their own clients."""
