"""LangChain's RecordManager, by which `index()` knows what it wrote, over a table of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_core.indexing.base import RecordManager

from qortex_db.integrations.homes import Homes
from qortex_db.models import IndexedDocument
from qortex_db.repositories import validation
from qortex_db.repositories.indexed_documents import IndexedDocumentRepository

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import URL

    from qortex_db.database import Database
    from qortex_db.settings import Settings


class QortexRecordManager(RecordManager):
    """What `index()` and `aindex()` wrote of a namespace, each method one statement.

    Args:
        namespace: The index's name: one for each table or collection of documents.
        database: A Database, Settings or a DSN; by default the environment. An open Database serves
            its own loop; the methods that wait have one of their own, in the background.

    Raises:
        InvalidInputError: The namespace is no text of 1 to 1,024 bytes.
    """

    def __init__(
        self, namespace: str, *, database: Database | Settings | str | URL | None = None
    ) -> None:
        super().__init__(validation.check_id(namespace, name="namespace"))
        self._homes = Homes(database)

    async def _documents(self) -> IndexedDocumentRepository:
        database = await self._homes.here()
        return IndexedDocumentRepository(database.executor.of(IndexedDocument), self.namespace)

    async def acreate_schema(self) -> None:
        """See that the table is there, which a migration makes.

        Raises:
            SchemaVersionError: It is not; `qortex-db upgrade` makes it.
        """
        await (await self._documents()).keys(limit=1)

    def create_schema(self) -> None:
        """As of `acreate_schema`."""
        self._homes.wait(self.acreate_schema)

    async def aget_time(self) -> float:
        """The server's clock, in seconds since 1970."""
        return await (await self._documents()).clock()

    def get_time(self) -> float:
        """As of `aget_time`."""
        return self._homes.wait(self.aget_time)

    async def aupdate(
        self,
        keys: Sequence[str],
        *,
        group_ids: Sequence[str | None] | None = None,
        time_at_least: float | None = None,
    ) -> None:
        """Note that documents were written now.

        Args:
            keys: Of the same one twice, the last counts.
            group_ids: The source of each; None leaves those that are recorded.
            time_at_least: A time of the server's clock, which has to be past.

        Raises:
            InvalidInputError: The clock is before `time_at_least`, and nothing was recorded; or
                there are not as many group_ids as keys.
        """
        documents = await self._documents()
        await documents.record(keys, groups=group_ids, at_least=time_at_least)

    def update(
        self,
        keys: Sequence[str],
        *,
        group_ids: Sequence[str | None] | None = None,
        time_at_least: float | None = None,
    ) -> None:
        """As of `aupdate`."""
        self._homes.wait(
            lambda: self.aupdate(keys, group_ids=group_ids, time_at_least=time_at_least)
        )

    async def aexists(self, keys: Sequence[str]) -> list[bool]:
        """Whether each key is recorded, in their order.

        Raises:
            InvalidInputError: A key was refused.
        """
        return await (await self._documents()).exist(keys)

    def exists(self, keys: Sequence[str]) -> list[bool]:
        """As of `aexists`."""
        return self._homes.wait(lambda: self.aexists(keys))

    async def alist_keys(
        self,
        *,
        before: float | None = None,
        after: float | None = None,
        group_ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """The keys of documents, those written longest ago first.

        Args:
            before: Those written before this time of the server's clock.
            after: Those written after it.
            group_ids: Those of these sources; of none, where the list is empty.

        Raises:
            InvalidInputError: A time, a limit or a group was refused.
        """
        documents = await self._documents()
        return await documents.keys(before=before, after=after, groups=group_ids, limit=limit)

    def list_keys(
        self,
        *,
        before: float | None = None,
        after: float | None = None,
        group_ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """As of `alist_keys`."""
        return self._homes.wait(
            lambda: self.alist_keys(before=before, after=after, group_ids=group_ids, limit=limit)
        )

    async def adelete_keys(self, keys: Sequence[str]) -> None:
        """Forget documents; keys that are not there are none to forget.

        Raises:
            InvalidInputError: A key was refused.
        """
        await (await self._documents()).forget(keys)

    def delete_keys(self, keys: Sequence[str]) -> None:
        """As of `adelete_keys`."""
        self._homes.wait(lambda: self.adelete_keys(keys))

    async def aclose(self) -> None:
        """Close what was opened here; a Database that was given stays open."""
        await self._homes.close()

    def close(self) -> None:
        """As of `aclose`, where nothing was awaited."""
        self._homes.wait(self._homes.close)
