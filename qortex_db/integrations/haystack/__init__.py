"""Haystack's document store and retrievers over our tables."""

from qortex_db.integrations.extras import needs

with needs("haystack", extra="haystack"):
    from qortex_db.integrations.haystack.retrievers import (
        QortexEmbeddingRetriever,
        QortexHybridRetriever,
        QortexKeywordRetriever,
    )
    from qortex_db.integrations.haystack.store import QortexDocumentStore

__all__ = [
    "QortexDocumentStore",
    "QortexEmbeddingRetriever",
    "QortexHybridRetriever",
    "QortexKeywordRetriever",
]
