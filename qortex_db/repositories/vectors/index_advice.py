"""What an index finds, what it should find, and which one to build."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping  # noqa: TC003 - pydantic resolves annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from sqlalchemy import Integer, bindparam, select, text

from qortex_db.errors import NotFoundError
from qortex_db.repositories import validation
from qortex_db.repositories.statement_cache import MAX_TABLES
from qortex_db.repositories.vectors.rows.row_shape import sent_embedding
from qortex_db.sql import func
from qortex_db.values.keys import key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select, Table

    from qortex_db.repositories.vectors.rows.namespaces import Scope
    from qortex_db.repositories.vectors.search.searches import VectorSearches

MAX_SAMPLE: Final = 1_000
"""The most queries of one measurement."""
MEASURED_SECONDS: Final = 60.0
"""How long a measurement looks for true neighbours by default."""
SMALL: Final = 10_000
"""Up to so many rows, comparing with every row takes a few milliseconds."""

_LADDER: Final = (10, 20, 40, 60, 80, 100, 150, 200, 300, 400, 600, 800, 1_000)
_LINKS: Final = 8 * 2 * 16  # bytes of a row's links in the lowest layer, at m = 16
_ROW: Final = 60  # and of its place, header and alignment
_FILLED: Final = 0.85  # of a page, on average

Storage: TypeAlias = Literal["full", "half", "binary"]

TABLE_SIZE: Final = text("""
SELECT coalesce(pg_catalog.sum(c.reltuples::float8) FILTER (WHERE c.reltuples >= 0.0::real),
                -1.0::float8)::bigint,
       coalesce(pg_catalog.sum(pg_catalog.pg_relation_size(c.oid)), 0.0::numeric)::bigint,
       (SELECT setting::bigint * 8192 FROM pg_catalog.pg_settings
        WHERE name = 'effective_cache_size')
FROM pg_catalog.pg_class c WHERE c.relkind <> 'p'::"char" AND c.oid = ANY (ARRAY(
  SELECT pg_catalog.to_regclass(:name)::oid UNION ALL
  SELECT part.relid::oid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass(:name)) part))
""")
"""The planner's idea of a table's rows (-1 before the first ANALYZE), with those of all its
partitions, and of the server's cache."""


@dataclass(frozen=True, slots=True)
class RecallProbe:
    """How many of the true neighbours an index finds.

    Attributes:
        recall: 0.0 to 1.0, the mean over the sample.
        sample: How many stored vectors were searched for.
        limit: How many neighbours of each.
        ef_search: The setting measured; None where it was the default.
    """

    recall: float
    sample: int
    limit: int
    ef_search: int | None


@dataclass(frozen=True, slots=True)
class Tuning:
    """The smallest setting that reaches a recall.

    Attributes:
        tried: The recall of each setting that was measured.
    """

    ef_search: int
    recall: float
    tried: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class IndexAdvice:
    """Which index to build.

    Attributes:
        storage: What the index holds; the column keeps the full vectors.
        index_bytes: About what it will take.
        reasons: Sentences.
    """

    method: Literal["none", "hnsw"]
    storage: Storage
    index_bytes: int
    reasons: tuple[str, ...]


@functools.lru_cache(MAX_TABLES)
def sampled(table: Table, scope: Scope) -> Select[Any]:
    """Random rows; it reads every id, as the exact answers read every row."""
    return (
        select(key_of(table), sent_embedding(table.c.vec))
        .where(table.c.vec.is_not(None), *scope.clauses)
        .order_by(func.random())
        .limit(bindparam("sample", type_=Integer))
    )


class Judge:
    """Measures a table's searches against exact ones, on stored vectors.

    Attributes:
        limit: How many neighbours of each.
    """

    def __init__(self, searches: VectorSearches[Any], limit: int) -> None:
        self._searches = searches
        self.limit = validation.check_limit(limit, 1_000)
        self._queries: list[Any] = []
        self._right: list[set[Any]] = []

    async def prepare(self, rows: Sequence[Any], seconds: float) -> None:
        """Find the true neighbours of rows: of as many as there is time for, at least of one."""
        deadline = time.monotonic() + seconds
        for key, embedding in rows:
            if self._queries and time.monotonic() >= deadline:
                return
            if embedding.any():  # a zero vector, added through the store, has no direction
                self._queries.append((key, embedding))
                self._right.append(await self._found(key, embedding, exact=True))

    async def recall(self, ef_search: int | None) -> float:
        """The mean share of the true neighbours that are found."""
        shares = []
        for (key, embedding), right in zip(self._queries, self._right, strict=True):
            found = await self._found(key, embedding, ef_search=ef_search)
            shares.append(len(found & right) / len(right) if right else 1.0)
        return sum(shares) / len(shares) if shares else 1.0

    @property
    def sample(self) -> int:
        """How many queries there are."""
        return len(self._queries)

    async def _found(self, key: Any, embedding: Any, **options: Any) -> set[Any]:
        # One more, since each finds itself.
        hits = await self._searches.search(
            embedding, limit=self.limit + 1, with_payload=False, **options
        )
        return {hit.id for hit in hits if hit.id != key}


async def tune(judge: Judge, target: float, max_ef_search: int) -> Tuning:
    """Climb until the recall is reached, then go back between the last two steps."""
    tried: dict[int, float] = {}
    below = 0
    for step in (*(s for s in _LADDER if s < max_ef_search), max_ef_search):
        tried[step] = await judge.recall(step)
        if tried[step] >= target:
            break
        below = step
    else:
        raise NotFoundError(
            f"There is no ef_search up to {max_ef_search} with a recall of {target:g}; at most it "
            f"is {max(tried.values()):.3f}. Build the index with a larger m or ef_construction."
        )
    reached = step
    while reached - below > max(1, below // 20):
        middle = (below + reached) // 2
        tried[middle] = await judge.recall(middle)
        if tried[middle] >= target:
            reached = middle
        else:
            below = middle
    return Tuning(reached, tried[reached], dict(sorted(tried.items())))


def advise(rows: int, dimensions: int, memory: int) -> IndexAdvice:
    """Which index suits so many vectors and so much memory."""
    if rows <= SMALL:
        size = index_bytes(rows, dimensions, "full")
        why = f"Comparing with each of {rows:,} rows takes a few milliseconds, and is exact."
        return IndexAdvice("none", "full", size, (why,))
    reasons = [f"An HNSW index is read at random, so it has to fit into memory ({memory:,} bytes)."]
    for storage in ("full", "half", "binary"):
        size = index_bytes(rows, dimensions, storage)
        if size <= memory:
            reasons.append(f"By {_NAMES[storage]} it takes about {size:,} bytes, which do.")
            break
        reasons.append(f"By {_NAMES[storage]} it takes about {size:,} bytes, which do not.")
    if storage == "binary":
        reasons.append("Candidates by single bits have to be compared anew by the full vectors.")
    return IndexAdvice("hnsw", storage, size, tuple(reasons))


_NAMES: Final = {"full": "full vectors", "half": "half precision", "binary": "single bits"}


def index_bytes(rows: int, dimensions: int, storage: Storage) -> int:
    """About what an HNSW index with m = 16 takes."""
    element = {"full": 4 * dimensions, "half": 2 * dimensions, "binary": dimensions // 8}[storage]
    return int(rows * (element + _LINKS + _ROW) / _FILLED)
