"""LlamaIndex's vector store over our tables."""

from qortex_db.integrations.extras import needs

with needs("llama_index", extra="llama-index"):
    from qortex_db.integrations.llama_index.store import QortexVectorStore

__all__ = ["QortexVectorStore"]
