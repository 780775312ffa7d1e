"""LangChain's VectorStore over a collection."""

from __future__ import annotations

import math
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, Self

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from qortex_db.errors import InvalidInputError
from qortex_db.integrations.collections import CollectionOf, refuse_others
from qortex_db.integrations.homes import Homes
from qortex_db.integrations.langchain.retriever import QortexHybridRetriever
from qortex_db.repositories.validation import MAX_LIMIT, check_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from langchain_core.embeddings import Embeddings
    from sqlalchemy import URL

    from qortex_db.database import Database
    from qortex_db.models import Collection
    from qortex_db.repositories.vectors.rows.records import SearchHit
    from qortex_db.settings import Settings


class QortexVectorStore(VectorStore):
    """Documents of a table that a migration made: the default one, or any collection of yours.

    A document's `page_content` is the row's document, its `metadata` the payload. A search is one
    statement, and takes `filter` as our `where`, beside every option of the repository's `search`
    (`ef_search`, `exact`, `using`, `boost` …).

    Args:
        embedding: LangChain's model.
        database: A Database, Settings or a DSN; by default the environment. An open Database serves
            its own loop; the methods that wait have one of their own, in the background.
        collection: A model, or the name of a table; by default `qortex_vectors`.
        mapping: Which columns are what, of a model that does not say so.
        namespace: Of a collection that declares one.
        cache_as: A name of the model: embeddings are then kept in the cache, and no text is
            embedded twice.

    Raises:
        InvalidInputError: The model is no collection.
    """

    def __init__(
        self,
        embedding: Embeddings,
        *,
        database: Database | Settings | str | URL | None = None,
        collection: type[object] | str | None = None,
        mapping: Collection | None = None,
        namespace: Any = None,
        cache_as: str | None = None,
    ) -> None:
        self._embedding = embedding
        self._cached = cache_as is not None
        self._homes = Homes(database)
        embedder = {} if cache_as is None else {"embedder": embedding, "name": cache_as}
        self._of = CollectionOf(collection, mapping, {"namespace": namespace, **embedder})

    @property
    def embeddings(self) -> Embeddings:
        """The model."""
        return self._embedding

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """A store, with texts; the options are the class's."""
        store = cls(embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """A store, with texts; the options are the class's."""
        store = cls(embedding, **kwargs)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Store texts; one whose id is there takes the old one's place.

        Args:
            batch_size: How many are embedded and stored together, 1 to 10,000, as LangChain's
                `index()` asks; by default all of them.

        Returns:
            The ids, in the order of the texts.

        Raises:
            InvalidInputError: There are not as many metadatas, or ids, as texts.
            DimensionMismatchError: An embedding has another length than the column.
        """
        refuse_others(kwargs)
        documents = list(texts)
        for name, given in (("metadatas", metadatas), ("ids", ids)):
            if given and len(given) != len(documents):
                raise InvalidInputError(
                    f"There are {len(documents)} texts and {len(given)} {name}; they must match."
                )
        given_ids = ids or [None] * len(documents)
        keys = [self._of.new_key() if id_ is None else self._of.key(id_) for id_ in given_ids]
        records: list[dict[str, Any]] = [
            {"id": key, "document": text, "payload": dict(payload)}
            for key, text, payload in zip(keys, documents, metadatas or repeat({}), strict=False)
        ]
        size = len(records) or 1
        if batch_size is not None:
            size = check_limit(batch_size, MAX_LIMIT, name="batch_size")
        vectors = self._of(await self._homes.here())
        for start in range(0, len(records), size):
            batch = records[start : start + size]
            if not self._cached:
                texts_of = [record["document"] for record in batch]
                made = await self._embedding.aembed_documents(texts_of)
                for record, vector in zip(batch, made, strict=True):
                    record["embedding"] = vector
            await self._of.told(vectors.upsert(batch))
        return [str(key) for key in keys]

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """As of `aadd_texts`."""
        return self._homes.wait(
            lambda: self.aadd_texts(texts, metadatas, ids=ids, batch_size=batch_size, **kwargs)
        )

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents of ids that are there, in their order.

        Raises:
            InvalidInputError: An id was refused.
        """
        vectors = self._of(await self._homes.here())
        found = await self._of.told(vectors.get([self._of.key(id_) for id_ in ids]))
        return [_document(record) for record in found.values()]

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """As of `aget_by_ids`."""
        return self._homes.wait(lambda: self.aget_by_ids(ids))

    async def adelete(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> bool:
        """Remove documents by their ids, or those that a filter matches; by neither, all of them.

        Ids that are not there are none to remove.

        Raises:
            InvalidInputError: An id was refused.
        """
        refuse_others(kwargs)
        vectors = self._of(await self._homes.here())
        if ids is not None:
            gone = vectors.delete([self._of.key(id_) for id_ in ids])
        elif filter is not None:
            gone = vectors.delete_where(filter)
        else:
            gone = vectors.delete_all()
        await self._of.told(gone)
        return True

    def delete(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> bool:
        """As of `adelete`."""
        return self._homes.wait(lambda: self.adelete(ids, filter=filter, **kwargs))

    async def asimilarity_search_with_score_by_vector(
        self,
        embedding: list[float] | str,
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """The most similar documents with their scores: higher is better, cosine's from -1 to 1."""
        vectors = self._of(await self._homes.here())
        hits = await self._of.told(vectors.search(embedding, limit=k, where=filter, **kwargs))
        return [(_document(hit), hit.score) for hit in hits]

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The same, by a text.

        Raises:
            InvalidInputError: A filter or a number was refused.
            DimensionMismatchError: An embedding has another length than the column.
        """
        embedding = await self._query(query)
        return await self.asimilarity_search_with_score_by_vector(embedding, k, **kwargs)

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The most similar documents, best first."""
        found = await self.asimilarity_search_with_score(query, k, **kwargs)
        return [document for document, _ in found]

    async def asimilarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """The same, by an embedding."""
        found = await self.asimilarity_search_with_score_by_vector(embedding, k, **kwargs)
        return [document for document, _ in found]

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """As of the async one."""
        return self._homes.wait(
            lambda: self.asimilarity_search_with_score_by_vector(embedding, k, **kwargs)
        )

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """As of the async one."""
        return self._homes.wait(lambda: self.asimilarity_search_with_score(query, k, **kwargs))

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """As of the async one."""
        return self._homes.wait(lambda: self.asimilarity_search(query, k, **kwargs))

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """As of the async one."""
        return self._homes.wait(lambda: self.asimilarity_search_by_vector(embedding, k, **kwargs))

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: list[float] | str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> list[Document]:
        """Similar documents that differ among themselves, in the order of their choice."""
        vectors = self._of(await self._homes.here())
        found = vectors.mmr_search(
            embedding,
            limit=k,
            fetch_limit=max(k, fetch_k),
            lambda_=lambda_mult,
            where=filter,
            **kwargs,
        )
        return [_document(hit) for hit in await self._of.told(found)]

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """The same, by a text."""
        embedding = await self._query(query)
        return await self.amax_marginal_relevance_search_by_vector(
            embedding, k, fetch_k, lambda_mult, **kwargs
        )

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """As of the async one."""
        return self._homes.wait(
            lambda: self.amax_marginal_relevance_search(query, k, fetch_k, lambda_mult, **kwargs)
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """As of the async one."""
        return self._homes.wait(
            lambda: self.amax_marginal_relevance_search_by_vector(
                embedding, k, fetch_k, lambda_mult, **kwargs
            )
        )

    async def ahybrid_search_with_score(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """The best by meaning and by words together; options are `hybrid_search`'s.

        Raises:
            InvalidInputError: A filter or a number was refused, or the table has no words.
            DimensionMismatchError: An embedding has another length than the column.
        """
        vectors = self._of(await self._homes.here())
        embedding = await self._query(query)
        hits = await self._of.told(
            vectors.hybrid_search(embedding, query, limit=k, where=filter, **kwargs)
        )
        return [(_document(hit), hit.score) for hit in hits]

    def hybrid_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """As of the async one."""
        return self._homes.wait(lambda: self.ahybrid_search_with_score(query, k, **kwargs))

    def as_hybrid_retriever(self, **search_kwargs: Any) -> QortexHybridRetriever:
        """A retriever by meaning and words: `k`, `filter`, and the options of `hybrid_search`."""
        return QortexHybridRetriever(vectorstore=self, search_kwargs=search_kwargs)

    async def aclose(self) -> None:
        """Close the connections that the store opened; a Database that it was given stays open."""
        await self._homes.close()

    def close(self) -> None:
        """As of `aclose`, where nothing was awaited."""
        self._homes.wait(self._homes.close)

    async def _query(self, query: str) -> Any:
        return query if self._cached else await self._embedding.aembed_query(query)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return _RELEVANCE[self._of.metric]


def _share(score: float) -> float:
    return min(1.0, max(0.0, score))


_RELEVANCE: Final[dict[str, Callable[[float], float]]] = {
    "cosine": _share,
    "inner_product": _share,
    "l2": lambda score: _share(1 + score / math.sqrt(2)),  # LangChain's, of a score of -distance
    "l1": lambda score: 1 / (1 - score),
}
"""From a score to LangChain's relevance, 0 to 1."""


def _document(found: SearchHit[Any] | Any) -> Document:
    return Document(
        id=str(found.id), page_content=found.document or "", metadata=dict(found.payload or {})
    )
