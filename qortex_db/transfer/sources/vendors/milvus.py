"""Milvus: a server, or the file of Milvus Lite."""

from __future__ import annotations

import json
import logging
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from qortex_db.errors import InvalidInputError, NotFoundError, UnavailableError
from qortex_db.messages import shown
from qortex_db.transfer.source import Page, SourceRow, SparseComponents
from qortex_db.transfer.sources.vendors.asking import (
    TIMEOUT_SECONDS,
    Asker,
    Fault,
    as_seconds,
    chosen,
    is_url,
    place_of,
)
from qortex_db.transfer.sources.vendors.grpc_faults import fault_of_grpc
from qortex_db.transfer.sources.vendors.milvus_config import VECTORS, described, read_fields

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from qortex_db.transfer.source import Position, SourceDescription, SourceId

_MOST: Final = 16_384
"""How many rows Milvus gives at once, and how wide its search may be."""
_NO_CONNECTION, _RATE_LIMIT, _NO_COLLECTION = 2, 8, 100


async def open_source(
    location: str,
    collection: str | None = None,
    *,
    api_key: str | None = None,
    database: str = "default",
    timeout_seconds: float | str = TIMEOUT_SECONDS,
) -> MilvusSource:
    """Open a collection.

    Args:
        location: A server's URL, or a file of Milvus Lite, whose name ends with .db.
        collection: Its name; None for the only one.
        api_key: A server's token: a key, or `user:password`.

    Raises:
        NotFoundError: There is no such file or collection.
        InvalidInputError: The collection is not loaded.
        UnavailableError: The server does not answer, or another process holds the file.
    """
    # It writes the stack of each error that it raises.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    at = place_of(location)
    seconds = as_seconds(timeout_seconds)
    ask = Asker(f"Milvus at {at}", _fault_of)
    client: Any = None
    try:
        client = await ask.once(_opened, location, api_key, database, seconds)
        name = chosen(collection, await ask.once(client.list_collections), ask.what, "collection")
        if is_url(location):
            await ask.once(_check_loaded, client, name, ask.what)
        else:  # which is in this process alone
            await ask.once(client.load_collection, name)
        schema = await ask.once(client.describe_collection, name)
        indexes = await ask.once(_indexes, client, name)
    except BaseException:
        await ask.close(client.close if client else None)
        raise
    return MilvusSource(client, ask, schema, indexes, f"milvus {at} {database} {name}")


class MilvusSource:
    """A collection of Milvus's. Its rows are read in the order of their primary keys."""

    def __init__(
        self,
        client: MilvusClient,
        ask: Asker,
        schema: Mapping[str, Any],
        indexes: Mapping[str, Mapping[str, Any]],
        label: str,
    ) -> None:
        self.label = label
        self._client = client
        self._ask = ask
        self._schema = schema
        self._indexes = indexes
        self._name = schema["collection_name"]
        fields = read_fields(schema)
        self._key = next(each["name"] for each in schema["fields"] if each.get("is_primary"))
        self._vectors = {each["name"]: each for each in fields if each["type"] in VECTORS}
        self._fields = [each["name"] for each in fields]
        if schema.get("enable_dynamic_field"):
            # Dynamic fields come with all others alone.
            self._fields = ["*"]
        self._hidden = {each["name"] for each in schema["fields"]} - {
            each["name"] for each in fields
        }

    async def describe(self) -> SourceDescription:
        """What the collection's schema and its indexes say."""
        counted = await self._ask(
            self._client.query,
            self._name,
            filter="",
            output_fields=["count(*)"],
            consistency_level="Strong",
        )
        return described(self._schema, self._indexes, counted[0]["count(*)"])

    async def pages(self, after: Position, size: int) -> AsyncIterator[Page]:
        """All rows behind a position, which is a primary key."""
        size = min(size, _MOST)
        while True:
            rows = [self._row(each) for each in await self._ask(self._page, after, size)]
            self._check_order(after, rows)
            after = rows[-1].id if len(rows) == size else None
            yield Page(rows, after)
            if after is None:
                return

    def _check_order(self, after: Position, rows: Sequence[SourceRow]) -> None:
        # Some versions of Milvus Lite give them as they were written: some would be lost.
        keys: list[Any] = [*([] if after is None else [after]), *(row.id for row in rows)]
        if any(one >= other for one, other in pairwise(keys)):
            raise InvalidInputError(
                f"{self._ask.what} does not give rows in the order of their keys, and can't be "
                "read in parts: pip install --upgrade pymilvus milvus-lite, or upgrade the server."
            )

    def _page(self, after: Position, size: int) -> Any:
        # Milvus orders for iterators alone, and they write a text that they go on from without
        # its escapes: each is asked for one page.
        rows = self._client.query_iterator(
            self._name,
            batch_size=size,
            filter="" if after is None else f"{self._key} > {_literal(after)}",
            output_fields=self._fields,
        )
        try:
            return rows.next()
        finally:
            rows.close()

    def _row(self, found: Mapping[str, Any]) -> SourceRow:
        vectors, payload = {}, {}
        for name, value in found.items():
            if name in self._vectors:
                vectors[name] = _vector(self._vectors[name], value)
            elif name != self._key and name not in self._hidden:
                payload[name] = _plain(value)
        return SourceRow(found[self._key], vectors, payload)

    async def get(self, ids: Sequence[SourceId]) -> list[SourceRow]:
        """These rows."""
        found: list[SourceRow] = []
        for start in range(0, len(ids), _MOST):
            rows = await self._ask(
                self._client.get,
                self._name,
                ids=list(ids[start : start + _MOST]),
                output_fields=self._fields,
            )
            found += [self._row(each) for each in rows]
        return found

    async def nearest(self, vector: str, query: Any, limit: int) -> list[SourceId]:
        """What its own search finds, as wide as its index may look."""
        if isinstance(query, SparseComponents):
            query = {
                int(i): float(value) for i, value in zip(query.indices, query.values, strict=True)
            }
        else:
            query = _sent(self._vectors[vector]["type"], query)
        found = await self._ask(
            self._client.search,
            self._name,
            [query],
            anns_field=vector,
            limit=limit,
            output_fields=[self._key],
            search_params={"params": _widest(self._indexes.get(vector, {}), limit)},
        )
        return [each[self._key] for each in found[0]]

    async def close(self) -> None:
        """Close the client."""
        await self._ask.close(self._client.close)


def _opened(
    location: str, api_key: str | None, database: str, timeout_seconds: float
) -> MilvusClient:
    if is_url(location):
        return MilvusClient(
            location, token=api_key or "", db_name=database, timeout=timeout_seconds
        )
    if api_key is not None:
        raise InvalidInputError("A file takes no api_key: leave it out.")
    if not location.endswith(".db") or not Path(location).exists():  # the client would make one
        raise NotFoundError(
            f"There is nothing of Milvus Lite's at {shown(location, 200)}: its files end "
            "with .db. A server's address begins with http:// or https://."
        )
    if Path(location).is_dir() and not (Path(location) / "collections").is_dir():
        raise NotFoundError(f"{shown(location, 200)} is a folder, but none of Milvus Lite's.")
    try:
        return MilvusClient(location)
    except MilvusException as error:
        raise UnavailableError(
            f"Milvus Lite can't open {shown(location, 200)} ({type(error).__name__}): another "
            "process holds it, or another version has written it."
        ) from None


def _check_loaded(client: MilvusClient, name: str, what: str) -> None:
    if "NotLoad" in str(client.get_load_state(name).get("state")):
        raise InvalidInputError(
            f"{shown(name)} of {what} is not loaded, and can't be read: call load_collection on it "
            "first."
        )


def _indexes(client: MilvusClient, name: str) -> dict[str, Mapping[str, Any]]:
    found = (client.describe_index(name, each) for each in client.list_indexes(name))
    return {each["field_name"]: each for each in found if each}


def _widest(index: Mapping[str, Any], limit: int) -> dict[str, Any]:
    kind = str(index.get("index_type", ""))
    if kind.startswith("HNSW"):
        return {"ef": max(limit, 1_000)}
    if "IVF" in kind:
        return {"nprobe": int(index.get("nlist") or 128)}
    return {}


def _literal(key: int | str) -> str:
    return json.dumps(key, ensure_ascii=False)


def _vector(field: Mapping[str, Any], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, dict):
        return SparseComponents(list(value), list(value.values()))
    if isinstance(value, list) and value and isinstance(value[0], bytes):
        value = value[0]
    if isinstance(value, bytes):
        match field["type"]:
            case DataType.FLOAT16_VECTOR:
                value = np.frombuffer(value, "<f2")
            case DataType.BFLOAT16_VECTOR:  # the upper half of a float32
                value = (np.frombuffer(value, "<u2").astype("<u4") << 16).view("<f4")
            case DataType.INT8_VECTOR:
                value = np.frombuffer(value, "i1")
    # Its client gives zeros for a vector that is null.
    return None if field.get("nullable") and not np.any(value) else value


def _sent(kind: DataType, query: Any) -> Any:
    match kind:
        case DataType.FLOAT16_VECTOR:
            return np.asarray(query, np.float16)
        case DataType.BFLOAT16_VECTOR:
            return (np.asarray(query, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
        case DataType.INT8_VECTOR:
            return np.asarray(query, np.int8)
    return [float(each) for each in query]


def _plain(value: Any) -> Any:
    """Without the client's own containers, and numpy's numbers of some versions."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    # protobuf's arrays, which some versions give, have no __iter__.
    return [_plain(each) for each in value] if hasattr(value, "__len__") else value


def _fault_of(error: Exception) -> Fault | None:
    if not isinstance(error, MilvusException):
        return fault_of_grpc(error)
    words = error.message.lower() if isinstance(error.message, str) else ""
    if any(each in words for each in ("auth check", "unauthenticated", "permission den")):
        return "denied"
    if error.code == _NO_CONNECTION or "deadline" in words or "unavailable" in words:
        return "away"
    if error.code == _RATE_LIMIT or "rate limit" in words:
        return "busy"
    return "missing" if error.code == _NO_COLLECTION else None
