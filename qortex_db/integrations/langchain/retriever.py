"""LangChain's retriever by meaning and words together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document  # noqa: TC002 - pydantic resolves annotations
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore  # noqa: TC002 - the same
from pydantic import ConfigDict, Field

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
    )


class QortexHybridRetriever(BaseRetriever):
    """What `QortexVectorStore.as_hybrid_retriever` gives.

    Attributes:
        vectorstore: A `QortexVectorStore`.
        search_kwargs: `k`, `filter`, and the options of `hybrid_search`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    vectorstore: VectorStore
    search_kwargs: dict[str, Any] = Field(default_factory=dict)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002 - LangChain's
    ) -> list[Document]:
        store: Any = self.vectorstore
        found = await store.ahybrid_search_with_score(query, **self.search_kwargs)
        return [document for document, _ in found]

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 - LangChain's
    ) -> list[Document]:
        store: Any = self.vectorstore
        found = store.hybrid_search_with_score(query, **self.search_kwargs)
        return [document for document, _ in found]
