"""How many documents of a table have a word: counted now and then, for BM25."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    Boolean,
    DateTime,
    Float,
    bindparam,
    case,
    cast,
    column,
    delete,
    exists,
    literal_column,
    null,
    or_,
    select,
    text,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert

from qortex_db.engine import on_primary
from qortex_db.errors import InvalidInputError, LockTimeoutError
from qortex_db.filters import check_readable
from qortex_db.filters.expressions import Constant
from qortex_db.filters.full_text import stored_words, text_configuration, words
from qortex_db.models import WordFrequency
from qortex_db.names import qualified
from qortex_db.repositories.statement_cache import MAX_TABLES
from qortex_db.repositories.vectors.rows.records import IdT
from qortex_db.repositories.vectors.table import TableBound
from qortex_db.sql import Text, func

if TYPE_CHECKING:
    from sqlalchemy import CTE, ColumnElement, Delete, FromClause, Select, Subquery, Table

    from qortex_db.repositories.vectors.table import VectorTable

LOOKED_AGAIN_SECONDS: Final = 60.0
"""How long a table is taken to have no counted words."""
STALE_SHARE: Final = 10
"""An ingest of a tenth as many records as there were documents counts them anew."""

FREQUENCIES: Final[Any] = WordFrequency.__table__
ALL_DOCUMENTS: Final = Constant("")
"""In the place of a word, what is about all documents."""

_MAY_READ: Final = text("""
SELECT pg_catalog.has_table_privilege(
  pg_catalog.to_regclass(CAST(:frequencies AS text))::oid, 'SELECT'::text)
""")


def counted_table() -> Subquery:
    """A table by its name in full, and whether the caller sees all of its rows.

    Where policies hide some, or a view does, frequencies would tell of them.
    """
    found = text("""
SELECT pg_catalog.quote_ident(n.nspname::text) || '.'::text
  || pg_catalog.quote_ident(c.relname::text) AS name,
  c.relkind IN ('r'::"char", 'p'::"char") AND NOT pg_catalog.row_security_active(c.oid) AS is_whole
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = pg_catalog.to_regclass(CAST(:table_name AS text))::oid
""")
    return found.columns(column("name", Text), column("is_whole", Boolean)).subquery(
        "_counted_table"
    )


@dataclass(frozen=True, slots=True)
class WordStatistics:
    """What was counted of a table's words.

    Attributes:
        documents: How many there were, with or without words.
        words: How many different ones more than one document had.
        mean_length: How many words a document had, repeated ones included.
        counted_at: When, in ISO 8601, UTC.
        current_documents: How many documents there are now.
        changed: How many rows with a document were written since, by `updated_at`; None where the
            table has no such column.
    """

    documents: int
    words: int
    mean_length: float
    counted_at: str
    current_documents: int
    changed: int | None


class WordCounts(TableBound[IdT]):
    """What BM25 takes of a table: the frequencies of its words."""

    async def count_words(self) -> WordStatistics:
        """Count the words of all documents, whatever the namespace, as BM25 ranks by them.

        It reads the whole table, while that stays in use. Until the next time the frequencies stay
        as they are, whatever is written; `ingest` counts anew where it brought in a tenth as many
        records.

        Raises:
            InvalidInputError: Policies or a view hide rows, or the documents can't be read.
            LockTimeoutError: Somebody else is counting.
        """
        vectors = self._vectors
        _check_has_words(vectors)
        is_whole, is_mine = await _counted_now(vectors)
        if not is_whole:
            raise InvalidInputError(
                f"Not all rows of {vectors.table.name} are to be seen here, by a policy or since "
                "it is a view: count its words as a role that sees them all."
            )
        if not is_mine:
            raise LockTimeoutError(f"The words of {vectors.table.name} are being counted already.")
        counted = await self._counted(on_primary(_statistics(vectors.table)))
        known = await vectors.executor.catalog()
        known[_key(vectors)] = counted and counted.documents, 0.0
        assert counted is not None  # noqa: S101 - in this transaction, or since this statement
        return counted

    async def word_statistics(self) -> WordStatistics | None:
        """What was counted, and what changed since, which is looked for in the whole table.

        Returns:
            None where nothing was, or rows are hidden from the caller.
        """
        _check_has_words(self._vectors)
        return await self._counted(_statistics(self._vectors.table))

    async def _counted(self, statement: Select[Any]) -> WordStatistics | None:
        vectors = self._vectors
        named = {"table_name": vectors.qualified_name}
        if await vectors.executor.on_citus():
            apart = _statistics(vectors.table, apart=True)
            rows = (await vectors.executor.run(apart, named)).rows
            if rows:
                since = {"counted_at": rows[0][3]}
                found = await vectors.executor.run(_written_since(vectors.table), since)
                rows = [[*rows[0], *found.rows[0]]]
        else:
            rows = (await vectors.executor.run(statement, named)).rows
        if not rows:
            return None
        documents, distinct, mean_length, counted_at, current, changed = rows[0]
        when = counted_at.astimezone(UTC).isoformat()
        return WordStatistics(documents, distinct, mean_length or 0.0, when, current, changed)


async def counted_documents(vectors: VectorTable) -> int | None:
    """How many documents a table had when its words were counted; None where they were not.

    Once they were, it is not looked at again: a statement copes with what is no longer there.
    """
    known = vectors.executor.known()
    if known is None:
        known = await vectors.executor.catalog()
    key = _key(vectors)
    before, until = known.get(key, (None, 0.0))
    if before is not None:
        return int(before)
    if time.monotonic() < until:
        return None
    name = qualified(vectors.executor.schema_of(FREQUENCIES.schema), FREQUENCIES.name)
    (may_read,) = (await vectors.executor.run(_MAY_READ, {"frequencies": name})).rows[0]
    documents: int | None = None
    if may_read:
        params = {"table_name": vectors.qualified_name}
        rows = (await vectors.executor.run(_counted(), params)).rows
        documents = rows[0][0] if rows else None
    known[key] = documents, time.monotonic() + LOOKED_AGAIN_SECONDS
    return documents


async def count_if_due(vectors: VectorTable, written: int) -> bool:
    """Count words anew if they were counted, and so many records came since.

    Whoever can't, as a role that may not, leaves them as they are.
    """
    documents = await counted_documents(vectors)
    if documents is None or written * STALE_SHARE < documents:
        return False
    _, is_mine = await _counted_now(vectors)
    return is_mine


async def _counted_now(vectors: VectorTable) -> tuple[bool, bool]:
    """Count words; whether all rows are to be seen, and whether nobody else was counting."""
    params = {"table_name": vectors.qualified_name}
    if not await vectors.executor.on_citus():
        row = (await vectors.executor.run(_count(vectors.table), params)).rows[0]
        return bool(row[0]), bool(row[1])
    async with vectors.executor.together() as lane:
        name, is_whole, is_mine = (await lane.run(_target(), params)).rows[0]
        if is_mine:
            counted = {"counted_name": name}
            await lane.run(_forget(), counted)
            await lane.run(_keep(vectors.table), counted)
    return is_whole, bool(is_mine)


def _key(vectors: VectorTable) -> tuple[object, str]:
    return WordFrequency, vectors.qualified_name


def _check_has_words(vectors: VectorTable) -> None:
    if "document" not in vectors.table.c:
        raise InvalidInputError(f"The table {vectors.table.name} has no column document.")
    check_readable(vectors.table, None, "count_words")


def _all_words(table: Table) -> ColumnElement[Any]:
    """The words of each document."""
    stored = stored_words(table)
    if stored is not None and stored.computed is not None:
        return stored
    parsed = words(table.c.document, text_configuration(table))
    return parsed if stored is None else func.coalesce(stored, parsed)


@functools.cache
def _target() -> Select[Any]:
    """A table's name, whether all rows are to be seen, and whether it is now ours to count."""
    named = counted_table()
    lock = func.pg_try_advisory_xact_lock(
        func.hashtextextended(named.c.name, literal_column("17::bigint"))
    )
    return select(named.c.name, named.c.is_whole, case((named.c.is_whole, lock)).label("is_mine"))


@functools.cache
def _forget() -> Delete:
    """Forget what was counted of a table."""
    return delete(FREQUENCIES).where(
        FREQUENCIES.c.table_name == bindparam("counted_name", type_=Text)
    )


@functools.lru_cache(MAX_TABLES)
def _keep(table: Table) -> Any:
    """Count the words of a table, of which nothing is kept, as Citus takes it."""
    kept = _counts(table, table)
    name = bindparam("counted_name", type_=Text)
    columns = name, kept.c.word, kept.c.documents, kept.c.mean_length, _counted_at(kept)
    return insert(FREQUENCIES).from_select(_COLUMNS, select(*columns))


_COLUMNS: Final = ("table_name", "word", "documents", "mean_length", "counted_at")


def _counted_at(kept: CTE) -> ColumnElement[Any]:
    return case((kept.c.word == ALL_DOCUMENTS, func.now()))


def _counts(table: Table, rows: FromClause) -> CTE:
    """The words that several documents have, and what is about all documents.

    Args:
        rows: The table, or that behind a gate.
    """
    part = func.unnest(_all_words(table)).table_valued(
        column("lexeme", Text), "positions", "weights", name="part"
    )
    has_document = table.c.document.is_not(None)
    occurrences = func.coalesce(func.cardinality(literal_column("part.positions")), Constant(1))
    counted = (
        select(
            part.c.lexeme.label("word"),
            func.count().label("documents"),
            func.sum(occurrences).label("occurrences"),
        )
        .select_from(rows.join(part, true()))
        .where(has_document)
        .group_by(part.c.lexeme)
        .cte("_counted")
        .prefix_with("MATERIALIZED")
    )
    documents = select(func.count()).select_from(rows).where(has_document).scalar_subquery()
    every = select(documents.label("documents")).cte("_every").prefix_with("MATERIALIZED")
    occurring = select(func.sum(counted.c.occurrences)).scalar_subquery()
    size = func.nullif(cast(every.c.documents, Float), literal_column("0.0::float8"), type_=Float)
    return union_all(
        select(
            counted.c.word,
            counted.c.documents,
            null().cast(Float).label("mean_length"),
        ).where(counted.c.documents > literal_column("1::bigint")),
        select(ALL_DOCUMENTS.label("word"), every.c.documents, cast(occurring, Float) / size),
    ).cte("_kept")


@functools.lru_cache(MAX_TABLES)
def _count(table: Table) -> Select[Any]:
    """Count, unless rows are hidden or somebody else counts; each is told."""
    target = _target().cte("_target").prefix_with("MATERIALIZED")
    mine = select(target.c.name).where(target.c.is_mine).cte("_mine").prefix_with("MATERIALIZED")
    kept = _counts(table, mine.join(table, true()))
    gone = (
        delete(FREQUENCIES)
        .where(FREQUENCIES.c.table_name == mine.c.name)
        .where(~exists().where(kept.c.word == FREQUENCIES.c.word))
        .returning(literal_column("1"))
        .cte("_gone")
    )
    columns = mine.c.name, kept.c.word, kept.c.documents, kept.c.mean_length, _counted_at(kept)
    new = insert(FREQUENCIES).from_select(
        _COLUMNS, select(*columns).select_from(mine.join(kept, true()))
    )
    others = new.excluded
    written = (
        new.on_conflict_do_update(
            index_elements=["table_name", "word"],
            set_={
                "documents": others.documents,
                "mean_length": others.mean_length,
                "counted_at": others.counted_at,
            },
            where=or_(others.counted_at.is_not(None), FREQUENCIES.c.documents != others.documents),
        )
        .returning(literal_column("1"))
        .cte("_written")
    )
    return (
        select(target.c.is_whole, func.coalesce(target.c.is_mine, literal_column("false")))
        .add_cte(gone, written)
        .execution_options(writes=(FREQUENCIES,))
    )


def _of_all_documents() -> Any:
    named = counted_table()
    name = select(named.c.name).where(named.c.is_whole).scalar_subquery()
    return FREQUENCIES.c.table_name == name, FREQUENCIES.c.word == ALL_DOCUMENTS


@functools.cache
def _counted() -> Select[Any]:
    return select(FREQUENCIES.c.documents).where(*_of_all_documents())


@functools.lru_cache(MAX_TABLES)
def _written_since(table: Table) -> Select[Any]:
    """How many documents there are, and how many rows with one were written since a time."""
    changed: ColumnElement[Any] = null()
    if "updated_at" in table.c:
        later = table.c.updated_at > bindparam("counted_at", type_=DateTime(timezone=True))
        changed = func.count().filter(later)
    return select(func.count(), changed).where(table.c.document.is_not(None))


@functools.lru_cache(MAX_TABLES)
def _statistics(table: Table, *, apart: bool = False) -> Select[Any]:
    """What was counted, and what changed since.

    Args:
        apart: Without the latter, since Citus joins no table of several nodes to one of its own.
    """
    header = select(*FREQUENCIES.c).where(*_of_all_documents()).cte("_header")
    others = FREQUENCIES.alias("_others")
    distinct = (
        select(func.count())
        .where(others.c.table_name == header.c.table_name, others.c.word != ALL_DOCUMENTS)
        .scalar_subquery()
    )
    counted = header.c.documents, distinct.label("words"), header.c.mean_length, header.c.counted_at
    if apart:
        return select(*counted)
    has_document = table.c.document.is_not(None)
    now = select(func.count()).select_from(table).where(has_document).scalar_subquery()
    changed: ColumnElement[Any] = null()
    if "updated_at" in table.c:
        later = (
            select(func.count())
            .select_from(table)
            .where(has_document, table.c.updated_at > header.c.counted_at)
        )
        changed = later.scalar_subquery()
    return select(*counted, now.label("current_documents"), changed.label("changed"))
