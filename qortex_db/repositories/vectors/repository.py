"""The repository of a vectors table: its writes, reads and searches, and what its index finds."""

from __future__ import annotations

import sys
from typing import Final

from qortex_db import checks, types
from qortex_db.observability import metrics, observed
from qortex_db.repositories import validation
from qortex_db.repositories.vectors.aggregates import VectorAggregates
from qortex_db.repositories.vectors.bulk_changes import VectorBulkChanges
from qortex_db.repositories.vectors.changes import VectorChanges
from qortex_db.repositories.vectors.clauses import VectorClauses
from qortex_db.repositories.vectors.index_advice import (
    MAX_SAMPLE,
    MEASURED_SECONDS,
    TABLE_SIZE,
    IndexAdvice,
    Judge,
    RecallProbe,
    Tuning,
    advise,
    sampled,
    tune,
)
from qortex_db.repositories.vectors.ingest import VectorIngest
from qortex_db.repositories.vectors.model_changes import VectorModelChanges
from qortex_db.repositories.vectors.reads import VectorReads
from qortex_db.repositories.vectors.rotation import VectorRotation
from qortex_db.repositories.vectors.rows.records import IdT
from qortex_db.repositories.vectors.search.index_settings import MAX_EF_SEARCH
from qortex_db.repositories.vectors.search.searches import VectorSearches
from qortex_db.repositories.vectors.word_counts import WordCounts

_SEARCHES: Final = (
    "hybrid_search",
    "mmr_search",
    "multi_search",
    "range_search",
    "recommend",
    "search",
    "search_groups",
    "search_many",
    "stream_search",
)
_WRITES: Final = (
    "delete",
    "delete_all",
    "delete_where",
    "fill_words",
    "ingest",
    "insert",
    "merge_payload",
    "reembed",
    "rotate_keys",
    "update",
    "update_many",
    "upsert",
    "upsert_with_zeros",
)
_LONG: Final = (
    "count_words",
    "fill_words",
    "ingest",
    "recall_probe",
    "reembed",
    "rotate_keys",
    "tune",
)


@observed("vectors", writes=_WRITES, searches=_SEARCHES, long=_LONG)
class VectorRepository(
    VectorClauses[IdT],
    VectorIngest[IdT],
    VectorChanges[IdT],
    VectorBulkChanges[IdT],
    VectorReads[IdT],
    VectorAggregates[IdT],
    VectorRotation[IdT],
    VectorModelChanges[IdT],
    VectorSearches[IdT],
    WordCounts[IdT],
):
    """The vectors of one table: stored, changed, read and searched."""

    async def dimensions(self) -> int | None:
        """What the column holds, read once for each engine; None where it declares nothing.

        Raises:
            SchemaVersionError: There is no such table.
        """
        return (await self._vectors.facts()).dimensions

    async def recall_probe(
        self,
        *,
        sample: int = 100,
        limit: int = 10,
        ef_search: int | None = None,
        max_seconds: float = MEASURED_SECONDS,
    ) -> RecallProbe:
        """How many of the true neighbours the index finds, on random stored vectors.

        It compares each of them with every row, so it is for now and then. The gauge
        `qortex_vec_recall` shows the last one.

        What is not described here is as of :meth:`search`.

        Args:
            sample: How many, 1 to `MAX_SAMPLE`.
            limit: How many neighbours of each, 1 to 1,000.
            max_seconds: How long it looks for true neighbours, .001 to 86,400: after that it takes
                the vectors that it has them of, which the answer's `sample` counts, at least one.

        Raises:
            InvalidInputError: A number was refused.
        """
        if ef_search is not None:
            ef_search = validation.check_limit(ef_search, MAX_EF_SEARCH, name="ef_search")
        judge = await self._judge(sample, limit, max_seconds)
        probe = RecallProbe(await judge.recall(ef_search), judge.sample, judge.limit, ef_search)
        labels = metrics.label("collection", self._vectors.table.name)
        metrics.vec_recall.set(probe.recall, labels)
        return probe

    async def tune(
        self,
        *,
        target_recall: float = 0.95,
        sample: int = 100,
        limit: int = 10,
        max_ef_search: int = MAX_EF_SEARCH,
        max_seconds: float = MEASURED_SECONDS,
    ) -> Tuning:
        """The smallest `ef_search` with which the index finds this share of the true neighbours.

        Args:
            target_recall: 0 to 1.
            sample: As of :meth:`recall_probe`.
            limit: As of :meth:`recall_probe`.
            max_ef_search: Where to stop, 1 to 1,000.
            max_seconds: As of :meth:`recall_probe`.

        Raises:
            InvalidInputError: A number was refused.
            NotFoundError: None reaches it.
        """
        target = checks.check_number(target_recall, name="target_recall", low=0, high=1)
        most = validation.check_limit(max_ef_search, MAX_EF_SEARCH, name="max_ef_search")
        return await tune(await self._judge(sample, limit, max_seconds), target, most)

    async def recommend_index(
        self, *, rows: int | None = None, memory_bytes: int | None = None
    ) -> IndexAdvice:
        """Which index suits the table's size and the server's memory, and why.

        Args:
            rows: How many there will be; by default the planner's own estimate.
            memory_bytes: What the index may take; by default half of `effective_cache_size`.

        Raises:
            InvalidInputError: A number was refused.
        """
        if rows is not None:
            rows = checks.check_count(rows, name="rows")
        if memory_bytes is not None:
            memory_bytes = checks.check_whole(memory_bytes, 0, sys.maxsize, name="memory_bytes")
        dimensions = await self.dimensions() or types.MAX_DIMENSIONS
        found = await self._vectors.executor.run(TABLE_SIZE, {"name": self._vectors.qualified_name})
        tuples, size, cache = found.rows[0] if found.rows else (-1, 0, 0)
        facts = await self._vectors.facts()
        if facts.distributed_by is not None:  # of which that was an empty shell
            tuples = int(facts.rows)
        if rows is None:  # not analyzed yet: from its size
            rows = tuples if tuples >= 0 else size // (4 * dimensions + 100)
        memory = cache // 2 if memory_bytes is None else memory_bytes
        return advise(rows, dimensions, memory)

    async def _judge(self, sample: int, limit: int, max_seconds: float) -> Judge:
        count = validation.check_limit(sample, MAX_SAMPLE, name="sample")
        seconds = checks.check_number(max_seconds, name="max_seconds", low=0.001, high=86_400)
        judge = Judge(self, limit)
        statement = sampled(self._vectors.table, self._vectors.scope)
        rows = await self._vectors.rows(statement, {"sample": count})
        await judge.prepare([(self._vectors.key.read(key), vec) for key, vec in rows], seconds)
        return judge
