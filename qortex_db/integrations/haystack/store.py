"""Haystack's DocumentStore over a collection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from haystack import default_from_dict, default_to_dict
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils import Secret, deserialize_secrets_inplace

from qortex_db.errors import ConflictError, InvalidInputError
from qortex_db.integrations.collections import CollectionOf, path_of
from qortex_db.integrations.haystack.documents import check_meta, document_of, listed, record_of
from qortex_db.integrations.haystack.filters import path_of_meta, where_of
from qortex_db.integrations.homes import Homes
from qortex_db.messages import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from haystack.dataclasses import Document
    from sqlalchemy import URL

    from qortex_db.database import Database
    from qortex_db.models import Collection
    from qortex_db.settings import Settings

_PAGE_ROWS = 1_000


class DuplicateError(ConflictError, DuplicateDocumentError):
    """A document's id is there already; nothing was written."""


class QortexDocumentStore:
    """Documents in a table that a migration made: the default one, or any collection of yours.

    A document's content is the row's document, its meta are the payload's keys; a blob and a sparse
    embedding come back too, and are not searched. Each method has its twin with `_async`.

    Args:
        database: A Secret or a string with the DSN, Settings or a Database; by default the
            environment. An open Database serves its own loop; the methods that wait have one of
            their own, in the background.
        collection: A model, or the name of a table; by default `qortex_vectors`.
        mapping: Which columns are what, of a model that does not say so.
        namespace: Of a collection that declares one.

    Raises:
        InvalidInputError: The model is no collection.
    """

    def __init__(
        self,
        database: Secret | Database | Settings | str | URL | None = None,
        *,
        collection: type[object] | str | None = None,
        mapping: Collection | None = None,
        namespace: Any = None,
    ) -> None:
        self._given = {"collection": collection, "mapping": mapping, "namespace": namespace}
        self._database = database
        dsn = database.resolve_value() if isinstance(database, Secret) else database
        self._homes = Homes(dsn)
        self._of = CollectionOf(collection, mapping, {"namespace": namespace})

    def to_dict(self) -> dict[str, Any]:
        """What a pipeline keeps of it: never a DSN, but the variable that has it.

        Raises:
            InvalidInputError: It was made by what can't be written without secrets, or by a model
                or a mapping in the place of a table's name.
        """
        if self._database is not None and not isinstance(self._database, Secret):
            kind = type(self._database).__name__
            raise InvalidInputError(
                f"A store that was given a {kind} is not serialized: it may hold a password. Pass "
                "Secret.from_env_var(…), or nothing, for the environment."
            )
        collection, mapping, namespace = self._given.values()
        if mapping is not None or not isinstance(collection, (str, type(None))):
            raise InvalidInputError(
                f"A store over a model is not serialized: pass the table's name, {self._of.name}, "
                "of a model with VectorMixin."
            )
        secret = None if self._database is None else self._database.to_dict()
        made: dict[str, Any] = default_to_dict(
            self, database=secret, collection=collection, namespace=namespace
        )
        return made

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """A store by what `to_dict` gave."""
        given = dict(data["init_parameters"])
        if given.get("database") is not None:
            deserialize_secrets_inplace(given, ["database"])
        made: Self = default_from_dict(cls, data | {"init_parameters": given})
        return made

    async def count_documents_async(self) -> int:
        """How many there are: a scan."""
        return await self._of.told((await self._vectors()).count())

    def count_documents(self) -> int:
        """As of the async one."""
        return self._homes.wait(self.count_documents_async)

    async def count_documents_by_filter_async(self, filters: dict[str, Any]) -> int:
        """How many a filter matches."""
        where = where_of(filters, self._of)
        return await self._of.told((await self._vectors()).count(where=where))

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """As of the async one."""
        return self._homes.wait(lambda: self.count_documents_by_filter_async(filters))

    async def filter_documents_async(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """The documents that a filter matches, or all, in the order of their ids.

        Raises:
            FilterError: The filter is none.
        """
        where = where_of(filters, self._of)
        vectors = await self._vectors()
        found: list[Document] = []
        after = None
        while True:
            page = vectors.scroll(limit=_PAGE_ROWS, after=after, where=where, with_embedding=True)
            read = await self._of.told(page)
            found += map(document_of, read.records)
            after = read.next
            if after is None:
                return found

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """As of the async one."""
        return self._homes.wait(lambda: self.filter_documents_async(filters))

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Store documents, all of them or none.

        Args:
            policy: Of ids that are there, or come twice. NONE is FAIL; of OVERWRITE the last one
                counts, of SKIP the first.

        Returns:
            How many were written; of OVERWRITE how many were given.

        Raises:
            InvalidInputError: A document was refused; nothing was written.
            DimensionMismatchError: An embedding has another length than the column.
            DuplicateDocumentError: An id is there, and the policy is FAIL.
        """
        given = [record_of(document, self._of) for document in listed(documents)]
        if policy is DuplicatePolicy.OVERWRITE:
            last = {record["id"]: record for record in given}
            await self._of.told((await self._vectors()).upsert(last.values()))
            return len(given)
        first: dict[Any, dict[str, Any]] = {}
        for record in given:
            is_first = first.setdefault(record["id"], record) is record
            if not is_first and policy is not DuplicatePolicy.SKIP:
                raise _duplicate(record["id"])
        database = await self._homes.here()
        if policy is DuplicatePolicy.SKIP:
            return len((await self._of.told(self._of(database).insert(first.values()))).new)
        async with database.unit_of_work() as uow:
            done = await self._of.told(self._of(uow).insert(first.values()))
            if done.existing:
                raise _duplicate(done.existing[0])
        return len(done.new)

    def write_documents(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """As of the async one."""
        return self._homes.wait(lambda: self.write_documents_async(documents, policy))

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """Remove documents by their ids; those that are not there are none to remove.

        Raises:
            InvalidInputError: An id was refused.
        """
        keys = [self._of.key(each) for each in document_ids]
        await self._of.told((await self._vectors()).delete(keys))

    def delete_documents(self, document_ids: list[str]) -> None:
        """As of the async one."""
        self._homes.wait(lambda: self.delete_documents_async(document_ids))

    async def delete_all_documents_async(self) -> None:
        """Remove all of them: of the table, or of the namespace."""
        await self._of.told((await self._vectors()).delete_all())

    def delete_all_documents(self) -> None:
        """As of the async one."""
        self._homes.wait(self.delete_all_documents_async)

    async def delete_by_filter_async(self, filters: dict[str, Any]) -> int:
        """Remove what a filter matches, and say how many; an empty filter is refused.

        Raises:
            FilterError: The filter is none.
            InvalidInputError: The filter is true of every document.
        """
        where = where_of(filters, self._of) or {}
        return await self._of.told((await self._vectors()).delete_where(where))

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """As of the async one."""
        return self._homes.wait(lambda: self.delete_by_filter_async(filters))

    async def update_by_filter_async(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Put values into the meta of what a filter matches; an empty filter is refused.

        Returns:
            How many documents changed: those that have the values already do not.

        Raises:
            FilterError: The filter is none.
            InvalidInputError: The filter is true of every document, or the meta was refused.
        """
        check_meta(meta)
        values = {path_of(key): value for key, value in meta.items()}
        where = where_of(filters, self._of) or {}
        return await self._of.told((await self._vectors()).merge_payload(values, where=where))

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """As of the async one."""
        return self._homes.wait(lambda: self.update_by_filter_async(filters, meta))

    async def count_unique_metadata_by_filter_async(
        self, filters: dict[str, Any], metadata_fields: Sequence[str]
    ) -> dict[str, int]:
        """How many different values each field has, of what a filter matches; 1 is 1.0."""
        paths = {name: path_of_meta(name) for name in metadata_fields}
        asked: Any = {path: ["distinct"] for path in paths.values()}
        where = where_of(filters, self._of)
        (all_rows,) = await self._of.told((await self._vectors()).aggregate(asked, where=where))
        return {name: all_rows.of[path]["distinct"] or 0 for name, path in paths.items()}

    def count_unique_metadata_by_filter(
        self, filters: dict[str, Any], metadata_fields: Sequence[str]
    ) -> dict[str, int]:
        """As of the async one."""
        return self._homes.wait(
            lambda: self.count_unique_metadata_by_filter_async(filters, metadata_fields)
        )

    async def get_metadata_field_min_max_async(self, metadata_field: str) -> dict[str, Any]:
        """The least and the greatest number of a field; where it has none, of its strings."""
        path = path_of_meta(metadata_field)
        asked: Any = {path: ["min", "max"]}
        (all_rows,) = await self._of.told((await self._vectors()).aggregate(asked))
        return dict(all_rows.of[path])

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """As of the async one."""
        return self._homes.wait(lambda: self.get_metadata_field_min_max_async(metadata_field))

    async def retrieve_async(
        self,
        *,
        query: str | None = None,
        query_embedding: list[float] | None = None,
        filters: Mapping[str, Any] | None = None,
        top_k: int = 10,
        return_embedding: bool = False,
        **options: Any,
    ) -> list[Document]:
        """The best documents with their scores, by meaning, by words, or by both: one statement.

        Args:
            options: Of the repository's `search`, or with a query of `hybrid_search`.

        Raises:
            InvalidInputError: Neither a query nor an embedding was given.
            DimensionMismatchError: An embedding has another length than the column.
        """
        vectors: Any = await self._vectors()
        given = {"limit": top_k, "where": where_of(filters, self._of)} | options
        given["with_embedding"] = return_embedding
        if query is not None:
            found = vectors.hybrid_search(query_embedding, query, **given)
        elif query_embedding is not None:
            found = vectors.search(query_embedding, **given)
        else:
            raise InvalidInputError("Pass query_embedding, query, or both.")
        return [document_of(hit, score=hit.score) for hit in await self._of.told(found)]

    def retrieve(self, **given: Any) -> list[Document]:
        """As of the async one."""
        return self._homes.wait(lambda: self.retrieve_async(**given))

    async def close_async(self) -> None:
        """Close what the store opened; a Database that it was given stays open."""
        await self._homes.close()

    def close(self) -> None:
        """As of the async one, where nothing was awaited."""
        self._homes.wait(self._homes.close)

    async def _vectors(self) -> Any:
        return self._of(await self._homes.here())


def _duplicate(key: object) -> DuplicateError:
    return DuplicateError(
        f"A document with the id {shown(key)} is there already, or comes twice; nothing was "
        "written. DuplicatePolicy.OVERWRITE replaces it, SKIP leaves it."
    )
