"""Chroma: a server, or a folder of its persistent client."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote, urlsplit

import chromadb
import httpx
import numpy as np
from chromadb.base_types import SparseVector
from chromadb.config import Settings
from chromadb.errors import ChromaError

from qortex_db.errors import ConflictError, InvalidInputError, NotFoundError
from qortex_db.messages import shown
from qortex_db.transfer.source import (
    Page,
    SourceDescription,
    SourceRow,
    SourceVector,
    SparseComponents,
)
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
from qortex_db.transfer.sources.vendors.indexes import clamped_hnsw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from chromadb.api import ClientAPI

    from qortex_db.models.vector_spec import Metric
    from qortex_db.transfer.source import Position, SourceId

_METRICS: Final[Mapping[str, Metric]] = {"cosine": "cosine", "l2": "l2", "ip": "inner_product"}
_FILE: Final = "chroma.sqlite3"
_URI: Final = "chroma:uri"
"""The key of a row's URI: Chroma's own, so that no metadata has it."""
_PARTS: Final[Any] = ["embeddings", "documents", "metadatas", "uris"]
_WIDE: Final = 200
"""How many its search is asked for at least: an HNSW search is as good as it is wide."""
_WINDOW: Final = 1_000


async def open_source(
    location: str,
    collection: str | None = None,
    *,
    api_key: str | None = None,
    tenant: str = "default_tenant",
    database: str = "default_database",
    key_header: str = "x-chroma-token",
    in_place: bool | str = False,
    timeout_seconds: float | str = TIMEOUT_SECONDS,
) -> ChromaSource:
    """Open a collection.

    Args:
        location: A server's URL, or the folder of a persistent client.
        collection: Its name; None for the only one.
        key_header: The header that carries the api_key; `authorization` has it behind "Bearer".
        in_place: Whether a folder is opened where it is. Chroma's client writes to a folder that it
            only reads, so that otherwise a copy is read, of a temporary folder.

    Raises:
        NotFoundError: There is no such folder or collection.
        UnavailableError: The server does not answer.
    """
    at = place_of(location)
    seconds = as_seconds(timeout_seconds)
    ask = Asker(f"Chroma at {at}", _fault_of)
    copy: TemporaryDirectory[str] | None = None
    client: ClientAPI | None = None
    try:
        if is_url(location):
            key = f"Bearer {api_key}" if key_header.lower() == "authorization" else api_key
            headers = {key_header: key} if api_key is not None and key is not None else {}
            client = await ask.once(
                _served, location, headers, tenant, database, timeout_seconds=seconds
            )
        else:
            _check_folder(location, api_key)
            copy = None if str(in_place).lower() == "true" else await ask.once(_copied, location)
            folder = copy.name if copy else location
            client = await ask.once(
                chromadb.PersistentClient,
                folder,
                settings=Settings(anonymized_telemetry=False),
                tenant=tenant,
                database=database,
            )
        names = await ask.once(_names, client)
        name = chosen(collection, names, ask.what, "collection")
        opened = await ask.once(client.get_collection, name, embedding_function=None)
    except BaseException:
        await ask.close(lambda: _closed(client, copy))
        raise
    return ChromaSource(client, copy, ask, opened, f"chroma {at} {tenant}/{database} {name}")


class ChromaSource:
    """A collection of Chroma's. Its rows are read in the order in which they were added."""

    def __init__(
        self,
        client: ClientAPI,
        copy: TemporaryDirectory[str] | None,
        ask: Asker,
        collection: chromadb.Collection,
        label: str,
    ) -> None:
        self.label = label
        self._client = client
        self._copy = copy
        self._ask = ask
        self._collection = collection
        self._sparse = _sparse_keys(collection)

    async def describe(self) -> SourceDescription:
        """What the collection's configuration says."""
        rows = await self._ask(self._collection.count)
        first = await self._ask(self._collection.get, limit=1, include=["embeddings"])
        embeddings = first["embeddings"]
        dimensions = None if embeddings is None or not len(embeddings) else len(embeddings[0])
        configuration = self._collection.configuration_json
        graph = configuration.get("hnsw") or configuration.get("spann") or {}
        index, notes = clamped_hnsw(
            graph.get("max_neighbors") or 16, graph.get("ef_construction") or 100, ""
        )
        metric = _METRICS[graph.get("space") or "l2"]
        vectors = [SourceVector("", dimensions, metric, index=index)]
        vectors += [
            SourceVector(key, None, "inner_product", "sparse") for key in sorted(self._sparse)
        ]
        if metric == "cosine":
            notes.append(
                "Chroma's index by cosine keeps vectors at length 1: that is what it gives, and "
                "not what was once written."
            )
        notes.append(
            "Chroma indexes every key of the metadata; here one index on the whole payload serves "
            "equality, and ranges have those that you declare."
        )
        notes.append(f"A row's URI, where it has one, is the payload's key {_URI!r}.")
        left_out = []
        if any(not key.startswith("hnsw:") for key in self._collection.metadata or {}):
            left_out.append("The collection's own metadata: a table has none but its comment.")
        function = configuration.get("embedding_function") or {}
        if function.get("name"):
            left_out.append(
                f"The embedding function {shown(function['name'])}: texts are embedded before they "
                "come here, by an embedder of yours."
            )
        return SourceDescription(rows, vectors, "text", (), left_out, notes)

    async def pages(self, after: Position, size: int) -> AsyncIterator[Page]:
        """All rows from a position on: how many were before it, and the last one's id."""
        position = after
        while True:
            offset = 0 if position is None else await self._behind(**position)
            found = await self._ask(self._collection.get, limit=size, offset=offset, include=_PARTS)
            rows = self._rows(found)
            position = None
            if len(rows) == size:
                position = {"offset": offset + size, "last": rows[-1].id}
            yield Page(rows, position)
            if position is None:
                return

    async def _behind(self, offset: int, last: str) -> int:
        """Where the rows behind that one begin: those before it may have become fewer."""
        window = 1
        while offset > 0:
            start = max(0, offset - window)
            found = await self._ask(
                self._collection.get, limit=offset - start, offset=start, include=[]
            )
            if last in found["ids"]:
                return start + found["ids"].index(last) + 1
            offset, window = start, _WINDOW
        raise ConflictError(
            f"Row {shown(last)} of {self._ask.what} was deleted since it was read, as the last one "
            "so far, and Chroma has no other place to go on from: begin this import anew."
        )

    def _rows(self, found: Mapping[str, Any]) -> list[SourceRow]:
        ids = found["ids"]
        parts = [[None] * len(ids) if found[part] is None else found[part] for part in _PARTS]
        return [self._row(*row) for row in zip(ids, *parts, strict=True)]

    def _row(
        self,
        key: str,
        embedding: Any,
        document: str | None,
        metadata: Mapping[str, Any] | None,
        uri: str | None,
    ) -> SourceRow:
        vectors = {} if embedding is None else {"": embedding}
        payload: dict[str, Any] = {}
        for name, value in (metadata or {}).items():
            if not isinstance(value, SparseVector):
                payload[name] = value
            elif name in self._sparse:
                vectors[name] = SparseComponents(value.indices, value.values)
            else:
                payload[name] = {"indices": value.indices, "values": value.values}
        if uri is not None:
            payload[_URI] = uri
        return SourceRow(key, vectors, payload, document)

    async def get(self, ids: Sequence[SourceId]) -> list[SourceRow]:
        """These rows."""
        if not ids:
            return []  # which Chroma takes for all
        wanted = [str(each) for each in ids]
        return self._rows(await self._ask(self._collection.get, wanted, include=_PARTS))

    async def nearest(self, vector: str, query: Any, limit: int) -> list[SourceId] | None:
        """What its own search finds, which is asked for more than that: so it looks further."""
        if vector:
            return None  # sparse ones are searched in its cloud alone
        found = await self._ask(
            self._collection.query,
            query_embeddings=cast("Any", [np.asarray(query, np.float32)]),
            n_results=max(limit, _WIDE),
            include=[],
        )
        return list(found["ids"][0][:limit])

    async def close(self) -> None:
        """Close the client and delete the copy."""
        await self._ask.close(lambda: _closed(self._client, self._copy))


def _check_folder(location: str, api_key: str | None) -> None:
    if api_key is not None:
        raise InvalidInputError("A folder takes no api_key: leave it out.")
    if not (Path(location) / _FILE).is_file():  # the client would make one
        raise NotFoundError(
            f"There is nothing of Chroma's at {shown(location, 200)}: the folder that "
            f"PersistentClient was given has a {_FILE}. A server's address begins with http:// or "
            "https://."
        )


def _copied(location: str) -> TemporaryDirectory[str]:
    copy = TemporaryDirectory(prefix="qortex-db-chroma-")
    try:
        shutil.copytree(
            location,
            copy.name,
            ignore=lambda _, names: {name for name in names if name.startswith(_FILE)},
            dirs_exist_ok=True,
        )
        # As of one moment, whoever writes to it.
        address = f"{(Path(location) / _FILE).resolve().as_uri()}?mode=ro"
        with (
            closing(sqlite3.connect(address, uri=True)) as there,
            closing(sqlite3.connect(Path(copy.name) / _FILE)) as here,
        ):
            there.backup(here)
    except BaseException:
        copy.cleanup()
        raise
    return copy


def _served(
    location: str,
    headers: dict[str, str],
    tenant: str,
    database: str,
    *,
    timeout_seconds: float,
) -> ClientAPI:
    parts = urlsplit(location)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 8000)
    # Of a whole URL its client takes no port from beside it.
    host = f"{parts.scheme}://{parts.hostname}:{port}{parts.path.rstrip('/')}"
    # Asked first, since a client that is refused while it is made leaves its connection open.
    httpx.get(
        f"{host}/api/v2/tenants/{quote(tenant, '')}/databases/{quote(database, '')}",
        headers=headers,
        timeout=timeout_seconds,
    ).raise_for_status()
    client = chromadb.HttpClient(
        host=host,
        port=port,
        ssl=secure,
        headers=headers,
        settings=Settings(anonymized_telemetry=False),
        tenant=tenant,
        database=database,
    )
    # There is no option for it, and its client waits for ever.
    for session in _sessions(client):
        session.timeout = timeout_seconds
    return client


def _sessions(client: ClientAPI) -> list[httpx.Client]:
    # It asks after its database by another one, which it never closes.
    owners = (client, getattr(client, "_admin_client", None))
    found = [getattr(getattr(each, "_server", None), "_session", None) for each in owners]
    return [each for each in found if isinstance(each, httpx.Client)]


def _names(client: ClientAPI) -> list[str]:
    names: list[str] = []
    while True:
        more = client.list_collections(limit=_WINDOW // 10, offset=len(names))
        names += [each.name for each in more]
        if not more:
            return names


def _closed(client: ClientAPI | None, copy: TemporaryDirectory[str] | None) -> None:
    try:
        if client is not None:
            for session in _sessions(client):
                session.close()  # which its client leaves open
            if hasattr(client, "close"):
                client.close()
    finally:
        if copy is not None:
            copy.cleanup()


def _sparse_keys(collection: chromadb.Collection) -> set[str]:
    """The keys of the metadata that a schema has an index of sparse vectors on."""
    keys = getattr(getattr(collection, "schema", None), "keys", None) or {}
    found = set()
    for key, types in keys.items():
        index = getattr(getattr(types, "sparse_vector", None), "sparse_vector_index", None)
        if index is not None and index.enabled:
            found.add(key)
    return found


def _fault_of(error: Exception) -> Fault | None:
    # Its client hides what a first request fails with behind a ValueError.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ChromaError):
            return fault_of_status(cause.code())
        if isinstance(cause, httpx.TransportError):
            return "away"
        if isinstance(cause, httpx.HTTPStatusError):
            return fault_of_status(cause.response.status_code)
        cause = cause.__cause__ or cause.__context__
    return None
