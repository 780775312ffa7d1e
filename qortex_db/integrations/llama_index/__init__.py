"""LlamaIndex's vector store over our tables."""

from qortex_db.integrations.llama_index.store import QortexVectorStore

__all__ = ["QortexVectorStore"]
