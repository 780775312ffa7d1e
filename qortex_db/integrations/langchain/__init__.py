"""LangChain's vector store, hybrid retriever and record manager over our tables."""

from qortex_db.integrations.extras import needs

with needs("langchain_core", extra="langchain"):
    from qortex_db.integrations.langchain.records import QortexRecordManager
    from qortex_db.integrations.langchain.retriever import QortexHybridRetriever
    from qortex_db.integrations.langchain.store import QortexVectorStore

__all__ = ["QortexHybridRetriever", "QortexRecordManager", "QortexVectorStore"]
