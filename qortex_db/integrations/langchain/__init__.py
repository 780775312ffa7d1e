"""LangChain's vector store and hybrid retriever over our tables."""

from qortex_db.integrations.langchain.retriever import QortexHybridRetriever
from qortex_db.integrations.langchain.store import QortexVectorStore

__all__ = ["QortexHybridRetriever", "QortexVectorStore"]
