"""The cache of embeddings."""
