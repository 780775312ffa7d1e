"""What a report tells of collections of vectors: each within some seconds, or why not."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import literal_column, select, text

from qortex_db.errors import QortexDbError
from qortex_db.filters import read_path
from qortex_db.index_health import read_indexes
from qortex_db.markers import ALL_NAMESPACES
from qortex_db.models.collection import collection_of
from qortex_db.models.mapping import collection_table
from qortex_db.report import maps, samples
from qortex_db.status import read_tables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Table

    from qortex_db.database import Database
    from qortex_db.engine import Executor
    from qortex_db.index_health import Index
    from qortex_db.report.maps import VectorMap
    from qortex_db.repositories.vectors.index_advice import RecallProbe
    from qortex_db.repositories.vectors.table import VectorTable

MOST: Final = 8
"""Collections of a report."""
MOST_PROBED: Final = 1_000_000
"""In tables of more rows than that, nothing is compared with all of them."""
_PROBED: Final = 20
_PROBE_SECONDS: Final = 5.0
_STATEMENT_SECONDS: Final = 15.0
_OID: Final = text("SELECT pg_catalog.to_regclass(:name)::oid::int8")


@dataclass(frozen=True, slots=True)
class CollectionReport:
    """A collection of vectors.

    Attributes:
        vectors: What each is, by its name.
        indexes: All of the table's.
        recall: How many of the true neighbours its index finds; None where it was not measured,
            and why is in `recall_note`.
        map: A sample of its rows on a plane, likewise.
        fault: Why nothing was read at all.
    """

    name: str
    vectors: dict[str, str]
    rows: int = 0
    is_estimate: bool = False
    bytes: int = 0
    indexes: tuple[Index, ...] = ()
    recall: RecallProbe | None = None
    recall_note: str = ""
    map: VectorMap | None = None
    map_note: str = ""
    fault: str = ""


async def read_collections(
    db: Database, models: Iterable[Any], colour: str | None
) -> list[CollectionReport]:
    """Read what is told of collections, of `MOST` at most.

    Args:
        models: The classes.
        colour: The path of what colours maps; None for whatever parts each most evenly.

    Raises:
        InvalidInputError: The path is none.
    """
    path = None if colour is None else read_path(colour).steps
    return [await _read(db, model, colour, path) for model in list(models)[:MOST]]


async def _read(
    db: Database, model: Any, colour: str | None, path: tuple[str, ...] | None
) -> CollectionReport:
    table = collection_table(model)
    vectors = {name: _said(spec) for name, spec in collection_of(table).vectors.items()}
    report = CollectionReport(table.fullname, vectors)
    limited = db.options(timeout_seconds=_STATEMENT_SECONDS)
    executor, schema = limited.executor, db.settings.db_schema if db.settings else None
    by_key = collection_of(table).namespace_in_key
    whose: Any = None if collection_of(table).namespace is None else ALL_NAMESPACES
    try:
        sizes, _ = await read_tables(executor, [table], schema)
        found = sizes[table.fullname]
        if by_key:  # what is asked of the table is the same in each
            whose = await _some_namespace(executor, table)
            if whose is None:
                return report
        there = await _as_it_is(db.collection(model, namespace=whose))
        (oid,) = (await executor.run(_OID, {"name": there.qualified_name})).rows[0]
        indexes = await read_indexes(executor, [oid])
        held = (await there.facts()).dimensions
    except QortexDbError as error:
        return replace(report, fault=str(error))
    if held is not None:
        vectors[there.name] = f"{held:,} dimensions, {vectors[there.name]}"
    report = replace(
        report,
        rows=found["rows"],
        is_estimate=bool(found["is_estimate"]),
        bytes=found["bytes"],
        indexes=indexes,
    )
    report = await _with_recall(report, limited, model, whose, by_key=by_key)
    return await _with_map(report, executor, there, colour, path)


async def _some_namespace(executor: Executor, table: Table) -> Any:
    """Any that has rows; None where there are none."""
    column = table.c[collection_of(table).namespace or ""]
    rows = (await executor.run(select(column).limit(literal_column("1")), {})).rows
    return rows[0][0] if rows else None


def _said(spec: Any) -> str:
    index = "no index" if spec.index is None else spec.index.method
    return f"{spec.metric}, {spec.storage}, {index}"


async def _as_it_is(repository: Any) -> VectorTable:
    """The table with `vec` for what it is searched by, while its model changes and after."""
    vectors: VectorTable = repository._vectors  # noqa: SLF001 - of this package
    changeover = (await vectors.facts(anew=True)).changeover
    return vectors if changeover is None else vectors.during(changeover)


async def _with_recall(
    report: CollectionReport, db: Any, model: Any, whose: Any, *, by_key: bool
) -> CollectionReport:
    if not any(one.holds_vectors and one.is_valid for one in report.indexes):
        note = "No index: every row is compared, and all true neighbours are found."
    elif by_key:
        note = "Not measured: its namespaces are searched each by itself."
    elif report.rows > MOST_PROBED:
        note = f"Not measured: it has more than {MOST_PROBED:,} rows; see `recall_probe`."
    elif not report.rows:
        note = "Not measured: there is no row."
    else:
        try:
            probe = await db.collection(model, namespace=whose).recall_probe(
                sample=_PROBED, max_seconds=_PROBE_SECONDS
            )
        except QortexDbError as error:
            note = f"Not measured: {error}"
        else:
            if probe.sample:
                return replace(report, recall=probe)
            note = "Not measured: no row has a vector."
    return replace(report, recall_note=note)


async def _with_map(
    report: CollectionReport,
    executor: Executor,
    vectors: VectorTable,
    colour: str | None,
    path: tuple[str, ...] | None,
) -> CollectionReport:
    table: Table = vectors.table
    hidden = set(collection_of(table).encrypted)
    if path is not None and path[0] in hidden:
        return replace(report, map_note=f"{colour} is stored encrypted, and colours nothing.")
    statement = samples.sampled(table, rows=report.rows, path=path)
    try:
        rows = [row for row in (await executor.run(statement, {})).rows if row[0] is not None]
    except QortexDbError as error:
        return replace(report, map_note=f"It could not be sampled: {error}")
    lengths = {len(row[0]) for row in rows}
    if len(rows) < 3:  # noqa: PLR2004 - two are a line
        return replace(report, map_note="There are too few vectors for a map.")
    if len(lengths) > 1:
        return replace(report, map_note="Its vectors have several lengths, and are on no plane.")
    by_angle = vectors.vector.metric in {"cosine", "inner_product"}
    # A moment of numpy: not on the event loop's thread.
    points, shares = await asyncio.to_thread(
        maps.project, [row[0] for row in rows], by_angle=by_angle
    )
    values: list[str | None] = [row[1] for row in rows]
    field = colour
    if path is None:
        payloads = [json.loads(value) if value else {} for value in values]
        for payload in payloads:
            for key in hidden & payload.keys():
                del payload[key]
        field = maps.most_even(payloads)
        values = [payload.get(field) for payload in payloads]
    groups, group = maps.grouped(values)
    made = maps.VectorMap(points, shares, field if groups else None, groups, group, report.rows)
    return replace(report, map=made)
