"""LlamaIndex's BasePydanticVectorStore over a collection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import MetadataMode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from qortex_db.errors import InvalidInputError
from qortex_db.integrations.collections import CollectionOf, refuse_others
from qortex_db.integrations.homes import Homes
from qortex_db.integrations.llama_index.filters import where_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores.types import MetadataFilters
    from sqlalchemy import URL

    from qortex_db.database import Database
    from qortex_db.models import Collection
    from qortex_db.settings import Settings


class QortexVectorStore(BasePydanticVectorStore):
    """Nodes in a table that a migration made: the default one, or any collection of yours.

    A node's text is the row's document; its metadata are the payload's keys, beside those by which
    LlamaIndex makes the node again. The modes are DEFAULT, MMR, HYBRID and SEMANTIC_HYBRID, SPARSE
    and TEXT_SEARCH; a query is one statement. Keywords of `query` are options of the repository's
    method (`ef_search`, `exact`, `using` …).

    Args:
        database: A Database, Settings or a DSN; by default the environment. An open Database serves
            its own loop; the methods that wait have one of their own, in the background.
        collection: A model, or the name of a table; by default `qortex_vectors`.
        mapping: Which columns are what, of a model that does not say so.
        namespace: Of a collection that declares one.

    Raises:
        InvalidInputError: The model is no collection, or has no payload.
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    flat_metadata: ClassVar[bool] = False

    _homes: Homes = PrivateAttr()
    _of: CollectionOf = PrivateAttr()

    def __init__(
        self,
        *,
        database: Database | Settings | str | URL | None = None,
        collection: type[object] | str | None = None,
        mapping: Collection | None = None,
        namespace: Any = None,
    ) -> None:
        super().__init__(stores_text=True)
        self._homes = Homes(database)
        self._of = CollectionOf(collection, mapping, {"namespace": namespace})

    @classmethod
    def class_name(cls) -> str:
        """Its name in what LlamaIndex serializes."""
        return "QortexVectorStore"

    @property
    def client(self) -> Any:
        """None: connections belong to event loops."""
        return None

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Store nodes with their embeddings; one whose id is there takes the old one's place.

        Returns:
            Their ids.

        Raises:
            InvalidInputError: A node or an option was refused; nothing was written.
            DimensionMismatchError: An embedding has another length than the column.
        """
        refuse_others(kwargs)
        records = [
            {
                "id": self._of.key(node.node_id),
                "embedding": node.get_embedding(),
                "document": node.get_content(metadata_mode=MetadataMode.NONE),
                "payload": node_to_metadata_dict(node, remove_text=True, flat_metadata=False),
            }
            for node in nodes
        ]
        vectors = self._of(await self._homes.here())
        await self._of.told(vectors.upsert(records))
        return [node.node_id for node in nodes]

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """As of `async_add`."""
        return self._homes.wait(lambda: self.async_add(nodes, **kwargs))

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove the nodes of a document."""
        refuse_others(delete_kwargs)
        vectors = self._of(await self._homes.here())
        await self._of.told(vectors.delete_where({"ref_doc_id": ref_doc_id}))

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """As of `adelete`."""
        self._homes.wait(lambda: self.adelete(ref_doc_id, **delete_kwargs))

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Remove nodes by their ids, a filter, or both together; by neither, none.

        Raises:
            InvalidInputError: A filter or an id was refused.
        """
        refuse_others(delete_kwargs)
        where = self._where(filters, node_ids=node_ids)
        if where is not None:
            vectors = self._of(await self._homes.here())
            await self._of.told(vectors.delete_where(where))

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """As of `adelete_nodes`."""
        self._homes.wait(lambda: self.adelete_nodes(node_ids, filters, **delete_kwargs))

    async def aclear(self) -> None:
        """Remove all of them: of the table, or of the namespace."""
        vectors = self._of(await self._homes.here())
        await self._of.told(vectors.delete_all())

    def clear(self) -> None:
        """As of `aclear`."""
        self._homes.wait(self.aclear)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """The nodes of ids, a filter, or both together; by neither, all of them.

        Raises:
            InvalidInputError: A filter or an id was refused.
        """
        vectors = self._of(await self._homes.here())
        where = self._where(filters, node_ids=node_ids)
        found: list[BaseNode] = []
        after = None
        while True:
            page = await self._of.told(vectors.scroll(limit=1_000, after=after, where=where))
            found += [_node(record) for record in page.records]
            after = page.next
            if after is None:
                return found

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """As of `aget_nodes`."""
        return self._homes.wait(lambda: self.aget_nodes(node_ids, filters))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Nodes in the order of a query's mode, with their scores: higher is better.

        Raises:
            InvalidInputError: The mode is none of those above, or lacks its embedding or text.
            DimensionMismatchError: An embedding has another length than the column.
        """
        vectors: Any = self._of(await self._homes.here())
        # LlamaIndex says with an empty list that it asks for none in particular.
        where = self._where(query.filters, query.doc_ids or None, query.node_ids or None)
        limit = query.similarity_top_k
        match query.mode:
            case VectorStoreQueryMode.DEFAULT:
                found = vectors.search(query.query_embedding, limit=limit, where=where, **kwargs)
            case VectorStoreQueryMode.MMR:
                threshold = 0.5 if query.mmr_threshold is None else query.mmr_threshold
                options = {"fetch_limit": max(50, 4 * limit), **kwargs}
                found = vectors.mmr_search(
                    query.query_embedding, limit=limit, lambda_=threshold, where=where, **options
                )
            case VectorStoreQueryMode.HYBRID | VectorStoreQueryMode.SEMANTIC_HYBRID:
                options = {"alpha": query.alpha, **kwargs}
                if query.sparse_top_k is not None:
                    options["branch_limit"] = {"dense": limit, "text": query.sparse_top_k}
                found = vectors.hybrid_search(
                    query.query_embedding,
                    query.query_str,
                    limit=query.hybrid_top_k or limit,
                    where=where,
                    **options,
                )
            case VectorStoreQueryMode.SPARSE | VectorStoreQueryMode.TEXT_SEARCH:
                count = query.sparse_top_k or limit
                text = query.query_str
                found = vectors.hybrid_search(None, text, limit=count, where=where, **kwargs)
            case _:
                raise InvalidInputError(f"The mode {query.mode.value} is not one of this store's.")
        hits = await self._of.told(found)
        return VectorStoreQueryResult(
            nodes=[_node(hit) for hit in hits],
            similarities=[hit.score for hit in hits],
            ids=[str(hit.id) for hit in hits],
        )

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """As of `aquery`."""
        return self._homes.wait(lambda: self.aquery(query, **kwargs))

    async def aclose(self) -> None:
        """Close the connections that the store opened; a Database that it was given stays open."""
        await self._homes.close()

    def close(self) -> None:
        """As of `aclose`, where nothing was awaited."""
        self._homes.wait(self._homes.close)

    def _where(
        self,
        filters: MetadataFilters | None,
        doc_ids: list[str] | None = None,
        node_ids: list[str] | None = None,
    ) -> dict[str, Any] | None:
        parts = [where_of(filters)]
        if doc_ids is not None:
            parts.append({"ref_doc_id": {"$in": doc_ids}})
        if node_ids is not None:
            parts.append({"$id": [self._of.key(each) for each in node_ids]})
        given = [part for part in parts if part is not None]
        return {"$and": given} if given else None


def _node(found: Any) -> BaseNode:
    return metadata_dict_to_node(dict(found.payload or {}), text=found.document)
