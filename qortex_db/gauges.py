"""Gauges that take a query: a task asks for them now and then, and a scrape reads what it found."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import Observation
from sqlalchemy import select

from qortex_db.models import InteroceptionEdge, LearningArmState, QortexVector
from qortex_db.models.mapping import declared_collections
from qortex_db.observability import log
from qortex_db.observability.metrics import MOST_VALUES, label, shown
from qortex_db.sql import func
from qortex_db.status import missing_tables, read_tables

if TYPE_CHECKING:
    from sqlalchemy import Select, Table

    from qortex_db.uow import Repositories

_ARMS: Final[Table] = LearningArmState.__table__  # type: ignore[assignment] # it is no other FromClause
_EDGES: Final[Table] = InteroceptionEdge.__table__  # type: ignore[assignment]
_VECTORS: Final[Table] = QortexVector.__table__  # type: ignore[assignment]


def _means() -> Select[Any]:
    """The arms with most pulls, each over all its contexts."""
    alpha, beta = func.sum(_ARMS.c.alpha), func.sum(_ARMS.c.beta)
    arm = _ARMS.c.learner_name, _ARMS.c.arm_id
    return (
        select(*arm, alpha / (alpha + beta))
        .group_by(*arm)
        .order_by(func.sum(_ARMS.c.pulls).desc(), *arm)
        .limit(MOST_VALUES)
    )


class Gauges:
    """The task that reads a Database's gauges; each failure is tried again at its next time.

    Args:
        repositories: Of the Database.
        schema: Of the package's tables, if not where the connections look.
        seconds: How long it waits after each time.
    """

    def __init__(self, repositories: Repositories, schema: str | None, seconds: float) -> None:
        self._repositories = repositories
        self._schema = schema
        self._seconds = seconds
        self._fails = False
        # Of no call's context: it goes on long after whatever span the Database was opened in.
        context = contextvars.Context()
        self._task = asyncio.create_task(self._run(), name="qortex_db_gauges", context=context)

    async def stop(self) -> None:
        """End it; what it found is shown no more."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while True:
                await self._tell()
                await asyncio.sleep(self._seconds)
        finally:
            shown.forget(self)

    async def _tell(self) -> None:
        try:
            shown.tell(self, await self._read())
            self._fails = False
        except Exception as error:  # noqa: BLE001 - a host's own engine and models may raise anything
            shown.forget(self)  # a series that ends can be alerted on, one that stands still can't
            if not self._fails:
                log.warning("gauges_not_read", error=type(error).__name__)
            self._fails = True

    async def _read(self) -> dict[str, list[Observation]]:
        executor = self._repositories.executor
        tables = {_VECTORS, *(table for _, table in declared_collections())}
        missing = await missing_tables(executor, tables, self._schema)
        there = [table for table in tables if table.fullname not in missing]
        sizes, _ = await read_tables(executor, [*there, _EDGES], self._schema)
        rows = {name: size["rows"] for name, size in sizes.items()}
        collections: Counter[str] = Counter()  # tables of one name, or beyond the first hundred
        for table in there:
            collections[label("collection", table.name)["collection"]] += rows[table.fullname]
        factors = await self._repositories.factors.summary()
        arms = (await executor.run(_means(), {})).rows
        return {
            "qortex_vec_index_size": [
                Observation(count, {"collection": name}) for name, count in collections.items()
            ],
            "qortex_buffer_edges": [Observation(rows[_EDGES.fullname])],
            "qortex_factor_mean": [Observation(factors.mean)],
            "qortex_factor_entropy": [Observation(factors.entropy)],
            "qortex_learning_posterior_mean": [
                Observation(mean, {**labels, "arm_id": arm})
                for learner, arm, mean in arms
                # Arms of all further learners would be one series, with the mean of any.
                if (labels := label("learner", learner))["learner"] == learner
            ],
        }
