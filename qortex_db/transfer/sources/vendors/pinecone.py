"""Pinecone: a namespace of an index, by the index's host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from pinecone import Index
from pinecone.errors.exceptions import (
    ApiError,
    PineconeConnectionError,
    PineconeTimeoutError,
    PineconeValueError,
    ResponseParsingError,
)

from qortex_db.checks import check_choice
from qortex_db.errors import InvalidInputError
from qortex_db.messages import shown
from qortex_db.models.vector_spec import HNSW
from qortex_db.transfer.source import (
    UNNAMED,
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
    host_of,
    is_url,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from qortex_db.models.vector_spec import Metric
    from qortex_db.transfer.source import Position, SourceId

SPARSE: Final = "sparse"
"""What the sparse vector is called, since Pinecone has no name for it."""
_DEFAULT: Final = "__default__"
_METRICS: Final[Mapping[str, Metric]] = {
    "cosine": "cosine",
    "dotproduct": "inner_product",
    "euclidean": "l2",
}
_MOST: Final = 100
"""How many ids Pinecone lists at once."""
_MOST_FETCHED: Final = 6_000
"""How many characters of ids a request carries, in its address."""


async def open_source(
    location: str,
    collection: str | None = None,
    *,
    api_key: str | None = None,
    metric: str | None = None,
    timeout_seconds: float | str = TIMEOUT_SECONDS,
) -> PineconeSource:
    """Open a namespace.

    Args:
        location: The index's host, as Pinecone shows it.
        collection: The namespace; `__default__` or "" for that without a name; None for the only
            one.
        metric: The index's, where its host does not tell: cosine, dotproduct or euclidean.

    Raises:
        NotFoundError: There is no such namespace.
        PermissionDeniedError: The key is refused.
        UnavailableError: The host does not answer.
    """
    if api_key is None:
        raise InvalidInputError("Pinecone asks for a key: pass api_key.")
    if metric is not None:
        check_choice(metric, _METRICS, name="metric")
    at = host_of(location if is_url(location) else f"https://{location}")
    seconds = as_seconds(timeout_seconds)
    ask = Asker(f"Pinecone at {at}", _fault_of)
    index: Any = None
    try:
        index = await ask.once(Index, host=at, api_key=api_key, timeout=seconds)
        stats = await ask(index.describe_index_stats)
        wanted = _DEFAULT if collection == "" else collection
        there = [each or _DEFAULT for each in stats.namespaces]
        name = chosen(wanted, there, ask.what, "namespace")
    except BaseException:
        await ask.close(index.close if index else None)
        raise
    return PineconeSource(index, ask, name, f"pinecone {at} {name}", metric)


class PineconeSource:
    """A namespace of an index. Its rows are read in the order in which Pinecone lists them."""

    def __init__(self, index: Index, ask: Asker, name: str, label: str, metric: str | None) -> None:
        self.label = label
        self._index = index
        self._ask = ask
        self._name = name
        self._namespace = "" if name == _DEFAULT else name
        self._metric = metric

    async def describe(self) -> SourceDescription:
        """What the index's host says, and what its first rows show."""
        stats = await self._ask(self._index.describe_index_stats)
        counts = {name or _DEFAULT: each.vector_count for name, each in stats.namespaces.items()}
        metric = stats.metric or self._metric
        notes = [
            "Pinecone does not tell how its index is built: here it is an HNSW with its defaults.",
            "Pinecone's counts follow its writes by seconds: leave it alone for that long.",
        ]
        if metric is None:
            metric = "cosine"
            notes.append("The host does not tell the metric: it is taken for cosine; name it.")
        vectors = []
        if stats.vector_type != "sparse":
            vectors.append(SourceVector(UNNAMED, stats.dimension, _METRICS[metric], index=HNSW()))
        if stats.vector_type == "sparse" or metric == "dotproduct" or await self._has_sparse():
            vectors.append(SourceVector(SPARSE, None, "inner_product", "sparse", None, HNSW()))
            notes.append(f"Sparse values, which have no name there, are the vector {SPARSE!r}.")
        left_out = [
            f"The namespace {shown(name)} of {count} rows: each is an import of its own."
            for name, count in sorted(counts.items())
            if name != self._name
        ]
        return SourceDescription(counts.get(self._name, 0), vectors, "text", (), left_out, notes)

    async def _has_sparse(self) -> bool:
        listed = await self._ask(self._index.list_paginated, limit=_MOST, namespace=self._namespace)
        rows = await self.get([each.id for each in listed.vectors if each.id])
        return any(SPARSE in row.vectors for row in rows)

    async def pages(self, after: Position, size: int) -> AsyncIterator[Page]:
        """All rows from a position on, which is Pinecone's own token."""
        token = after
        while True:
            ids: list[str] = []
            while len(ids) < size:
                listed = await self._ask(
                    self._index.list_paginated,
                    limit=min(_MOST, size - len(ids)),
                    pagination_token=token,
                    namespace=self._namespace,
                )
                ids += [each.id for each in listed.vectors if each.id]
                token = listed.pagination.next if listed.pagination else None
                if token is None:
                    break
            rows = {row.id: row for row in await self.get(ids)}
            # What was deleted since it was listed is none of them.
            yield Page([rows[each] for each in ids if each in rows], token)
            if token is None:
                return

    async def get(self, ids: Sequence[SourceId]) -> list[SourceRow]:
        """These rows."""
        rows: list[SourceRow] = []
        for some in _in_requests([str(each) for each in ids]):
            found = await self._ask(self._index.fetch, ids=some, namespace=self._namespace)
            rows += [_row(each) for each in found.vectors.values()]
        return rows

    async def nearest(self, vector: str, query: Any, limit: int) -> list[SourceId]:
        """What its own search finds: it has no setting of accuracy."""
        asked: dict[str, Any]
        if vector == SPARSE:
            asked = {
                "sparse_vector": {
                    "indices": [int(each) for each in query.indices],
                    "values": [float(each) for each in query.values],
                }
            }
        else:
            asked = {"vector": [float(each) for each in query]}
        found = await self._ask(self._index.query, top_k=limit, namespace=self._namespace, **asked)
        return [each.id for each in found.matches]

    async def close(self) -> None:
        """Close the client."""
        await self._ask.close(self._index.close)


def _in_requests(ids: list[str]) -> Iterator[list[str]]:
    some: list[str] = []
    length = 0
    for each in ids:
        cost = len(quote(each, "")) + len("&ids=")
        if some and (length + cost > _MOST_FETCHED or len(some) == _MOST):
            yield some
            some, length = [], 0
        some.append(each)
        length += cost
    if some:
        yield some


def _row(found: Any) -> SourceRow:
    vectors: dict[str, Any] = {}
    if found.values:
        vectors[UNNAMED] = found.values
    if found.sparse_values is not None and found.sparse_values.indices:
        vectors[SPARSE] = SparseComponents(found.sparse_values.indices, found.sparse_values.values)
    return SourceRow(found.id, vectors, found.metadata or {})


def _fault_of(error: Exception) -> Fault | None:
    if isinstance(error, PineconeConnectionError | PineconeTimeoutError):
        return "away"
    if isinstance(error, ApiError):
        return fault_of_status(error.status_code)
    return "invalid" if isinstance(error, PineconeValueError | ResponseParsingError) else None
