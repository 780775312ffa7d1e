"""Haystack's components that find documents of a store of ours."""

from __future__ import annotations

from typing import Any, Self

from haystack import component, default_from_dict, default_to_dict
from haystack.dataclasses import Document
from haystack.document_stores.types import FilterPolicy, apply_filter_policy

from qortex_db.errors import InvalidInputError
from qortex_db.integrations.haystack.store import QortexDocumentStore


class _Retriever:
    """What the retrievers have in common."""

    def __init__(
        self,
        document_store: QortexDocumentStore,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
        *,
        return_embedding: bool = False,
        search_options: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(document_store, QortexDocumentStore):
            kind = type(document_store).__name__
            raise InvalidInputError(f"document_store is a {kind}; pass a QortexDocumentStore.")
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k
        self.filter_policy = (
            FilterPolicy.from_str(filter_policy)
            if isinstance(filter_policy, str)
            else filter_policy
        )
        self.return_embedding = return_embedding
        self.search_options = search_options

    def to_dict(self) -> dict[str, Any]:
        """What a pipeline keeps of it."""
        made: dict[str, Any] = default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            filters=self.filters,
            top_k=self.top_k,
            filter_policy=self.filter_policy.value,
            return_embedding=self.return_embedding,
            search_options=self.search_options,
        )
        return made

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """One by what `to_dict` gave."""
        given = dict(data["init_parameters"])
        given["document_store"] = QortexDocumentStore.from_dict(given["document_store"])
        made: Self = default_from_dict(cls, data | {"init_parameters": given})
        return made

    def _asked(self, filters: dict[str, Any] | None, top_k: int | None) -> dict[str, Any]:
        return {
            **(self.search_options or {}),
            "filters": apply_filter_policy(self.filter_policy, self.filters, filters),
            "top_k": self.top_k if top_k is None else top_k,
            "return_embedding": self.return_embedding,
        }


@component
class QortexEmbeddingRetriever(_Retriever):
    """Documents of a store by meaning.

    Args:
        document_store: Where.
        filters: As of the store's `filter_documents`; what a run brings replaces it, or is merged
            with it by `filter_policy`.
        top_k: How many at most, 1 to 10,000.
        return_embedding: Whether documents come with their embeddings.
        search_options: Further ones of the repository's `search` or `hybrid_search`.
    """

    @component.output_types(documents=list[Document])
    def run(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """The most similar documents, best first."""
        asked = self._asked(filters, top_k)
        found = self.document_store.retrieve(query_embedding=query_embedding, **asked)
        return {"documents": found}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """The most similar documents, best first."""
        asked = self._asked(filters, top_k)
        found = await self.document_store.retrieve_async(query_embedding=query_embedding, **asked)
        return {"documents": found}


@component
class QortexKeywordRetriever(_Retriever):
    """Documents of a store by words; its arguments are those of `QortexEmbeddingRetriever`."""

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """The documents with words of the query, best first."""
        found = self.document_store.retrieve(query=query, **self._asked(filters, top_k))
        return {"documents": found}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """The documents with words of the query, best first."""
        asked = self._asked(filters, top_k)
        return {"documents": await self.document_store.retrieve_async(query=query, **asked)}


@component
class QortexHybridRetriever(_Retriever):
    """Documents by meaning and words; its arguments are those of `QortexEmbeddingRetriever`."""

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """The best by meaning and words together."""
        asked = self._asked(filters, top_k) | {"query_embedding": query_embedding}
        return {"documents": self.document_store.retrieve(query=query, **asked)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """The best by meaning and words together."""
        asked = self._asked(filters, top_k) | {"query_embedding": query_embedding}
        return {"documents": await self.document_store.retrieve_async(query=query, **asked)}
