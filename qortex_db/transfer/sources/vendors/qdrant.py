"""Qdrant: a server, or the folder of its client's local mode."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import portalocker
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from qortex_db.errors import InvalidInputError, NotFoundError, UnavailableError
from qortex_db.messages import shown
from qortex_db.transfer.source import Page, SourceRow, SparseComponents
from qortex_db.transfer.sources.vendors.asking import (
    TIMEOUT_SECONDS,
    Asker,
    Fault,
    as_seconds,
    chosen,
    fault_of_status,
    is_url,
    place_of,
)
from qortex_db.transfer.sources.vendors.qdrant_config import dense_and_sparse, described

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from qortex_db.transfer.source import IdKind, Position, SourceDescription, SourceId

_FIRST_UUID: Final = str(UUID(int=0))
"""Qdrant orders its points by id: the integers first."""
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def open_source(
    location: str,
    collection: str | None = None,
    *,
    api_key: str | None = None,
    timeout_seconds: float | str = TIMEOUT_SECONDS,
) -> QdrantSource:
    """Open a collection.

    Args:
        location: A server's URL, of its REST interface, or the folder of a local client.
        collection: Its name or an alias; None for the only one.

    Raises:
        NotFoundError: There is no such folder or collection.
        UnavailableError: The server does not answer, or another client holds the folder.
    """
    at = place_of(location)
    seconds = as_seconds(timeout_seconds)
    ask = Asker(f"Qdrant at {at}", _fault_of)
    client = None
    try:
        client = await ask.once(_opened, location, api_key, seconds)
        name = chosen(collection, await ask.once(_names, client), ask.what, "collection")
        parameters = (await ask.once(client.get_collection, name)).config.params
    except BaseException:
        await ask.close(client.close if client else None)
        raise
    vectors = [*dense_and_sparse(parameters)]
    return QdrantSource(client, ask, name, vectors, f"qdrant {at} {name}", local=not is_url(at))


class QdrantSource:
    """A collection of Qdrant's. Its points are read in the order of their ids."""

    def __init__(
        self,
        client: QdrantClient,
        ask: Asker,
        name: str,
        vectors: list[str],
        label: str,
        *,
        local: bool,
    ) -> None:
        self.label = label
        self._client = client
        self._ask = ask
        self._name = name
        # All but the multivectors. By their names, since `True` would read those too.
        self._vectors = vectors or False
        self._local = local

    async def describe(self) -> SourceDescription:
        """What the collection's configuration says."""
        info = await self._ask(self._client.get_collection, self._name)
        counted = await self._ask(self._client.count, self._name, exact=True)
        return described(info, counted.count, await self._id_kind(), local=self._local)

    async def _id_kind(self) -> IdKind | None:
        first, _ = await self._scroll(None, 1, with_vectors=False)
        uuids, _ = await self._scroll(_FIRST_UUID, 1, with_vectors=False)
        if not first:
            return None
        if not uuids:
            return "integer"
        return "uuid" if first[0].id == uuids[0].id else "text"

    async def pages(self, after: Position, size: int) -> AsyncIterator[Page]:
        """All points from a position on, which is the id that the page begins with."""
        while True:
            points, after = await self._scroll(after, size, with_vectors=self._vectors)
            yield Page([_row(point) for point in points], after)
            if after is None:
                return

    async def _scroll(
        self, after: Position, size: int, *, with_vectors: bool | list[str]
    ) -> tuple[list[models.Record], Position]:
        points, position = await self._ask(
            self._client.scroll,
            self._name,
            limit=size,
            offset=after,
            with_payload=True,
            with_vectors=with_vectors,
        )
        return points, position if position is None else _plain_id(position)

    async def get(self, ids: Sequence[SourceId]) -> list[SourceRow]:
        """These points."""
        points = await self._ask(
            self._client.retrieve,
            self._name,
            [_plain_id(each) for each in ids],
            with_payload=True,
            with_vectors=self._vectors,
        )
        return [_row(point) for point in points]

    async def nearest(self, vector: str, query: Any, limit: int) -> list[SourceId]:
        """What an exact search of its own finds: `exact=True` passes the graph by."""
        if isinstance(query, SparseComponents):
            query = models.SparseVector(
                indices=[int(each) for each in query.indices],
                values=[float(each) for each in query.values],
            )
        else:
            query = [float(each) for each in query]
        found = await self._ask(
            self._client.query_points,
            self._name,
            query=query,
            using=vector or None,
            limit=limit,
            with_payload=False,
            search_params=None if self._local else models.SearchParams(exact=True),
        )
        return [_id(point.id) for point in found.points]

    async def close(self) -> None:
        """Close the client."""
        await self._ask.close(self._client.close)


def _opened(location: str, api_key: str | None, timeout_seconds: float) -> QdrantClient:
    if is_url(location):
        # Its question after the server's version would warn where nobody answers.
        return QdrantClient(
            url=location,
            api_key=api_key,
            timeout=max(1, round(timeout_seconds)),
            check_compatibility=False,
        )
    if api_key is not None:
        raise InvalidInputError("A folder takes no api_key: leave it out.")
    if not (Path(location) / "meta.json").is_file():  # the client would make one
        raise NotFoundError(
            f"There is no local collection of Qdrant's at {shown(location, 200)}: the folder that "
            "QdrantClient(path=…) was given has a meta.json. A server's address begins with "
            "http:// or https://."
        )
    _check_free(Path(location) / ".lock")
    with warnings.catch_warnings():
        # That a large collection belongs on a server: it is being moved to one.
        warnings.filterwarnings("ignore", "Local mode is not recommended", UserWarning)
        return QdrantClient(path=location)


def _check_free(lock: Path) -> None:
    # A client that finds it taken leaves its files open.
    if not lock.exists():
        return
    with lock.open("r+") as file:
        try:
            portalocker.lock(file, portalocker.LOCK_EX | portalocker.LOCK_NB)
        except portalocker.LockException:
            raise UnavailableError(
                f"Another process holds the folder {shown(str(lock.parent), 200)}: close its "
                "client first, or import from a copy of the folder."
            ) from None
        portalocker.unlock(file)


def _names(client: QdrantClient) -> list[str]:
    collections = [each.name for each in client.get_collections().collections]
    if len(collections) == 1:  # which may have aliases, and is the only one nevertheless
        return collections
    return [*collections, *(each.alias_name for each in client.get_aliases().aliases)]


def _row(point: models.Record) -> SourceRow:
    vectors = point.vector
    if vectors is None:
        vectors = {}
    elif not isinstance(vectors, dict):
        vectors = {"": vectors}
    return SourceRow(
        _id(point.id),
        {
            name: SparseComponents(vector.indices, vector.values)
            if isinstance(vector, models.SparseVector)
            else vector
            for name, vector in vectors.items()
        },
        point.payload or {},
    )


def _id(value: int | str | UUID) -> SourceId:
    return UUID(value) if isinstance(value, str) else value


def _plain_id(value: SourceId) -> int | str:
    return value if isinstance(value, int) else str(value)


def _fault_of(error: Exception) -> Fault | None:
    if isinstance(error, ResourceExhaustedResponse):
        return "busy"
    if isinstance(error, ResponseHandlingException):
        # httpx's, of a connection or of its time; else what was answered is none of Qdrant's.
        return "away" if type(error.source).__module__.startswith("httpx") else "invalid"
    if isinstance(error, AssertionError):  # of an answer without a result
        return "invalid"
    return fault_of_status(error.status_code) if isinstance(error, UnexpectedResponse) else None
