"""What the server's catalogue says of tables that are exported or restored."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qortex_db.errors import SchemaVersionError
from qortex_db.messages import shown
from qortex_db.models import Checkpoint, EmbeddingChangeover, WordFrequency
from qortex_db.names import literal, own_tables, qualified
from qortex_db.transfer.archive.kinds import CAST, VECTORS, kind_of
from qortex_db.transfer.archive.manifest import Column, Sequence

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Sequence as ListOf

CHANGEOVERS: Final = EmbeddingChangeover.__tablename__
LEFT_OUT: Final = frozenset((Checkpoint.__tablename__,))
"""How far work on this database is, which is nothing of what it remembers."""
_NAMES_TABLES: Final = frozenset((CHANGEOVERS, WordFrequency.__tablename__))
"""Ours, with tables named in `table_name`: by another schema where they are restored into one."""
_KINDS: Final = {"r": "ONLY ", "p": ""}  # of tables with rows; a parent's hold its partitions'

_FIND: Final = """
SELECT c.oid, n.nspname::text, c.relkind::text, pg_catalog.pg_partition_root(c.oid)::oid
FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS w (name, place)
LEFT JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(w.name)::oid
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
ORDER BY w.place
"""
_COLUMNS: Final = """
SELECT a.attrelid, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod),
    b.typname::text, b.typnamespace = 'pg_catalog'::regnamespace::oid, d.objid IS NOT NULL,
    b.typtype = 'e'::"char",
    CASE WHEN t.typtype = 'd'::"char" THEN t.typtypmod ELSE a.atttypmod END,
    a.attgenerated <> ''::"char",
    a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''::"char",
    pg_catalog.pg_get_serial_sequence(
        pg_catalog.quote_ident(n.nspname::text) || '.'::text
        || pg_catalog.quote_ident(c.relname::text), a.attname::text)
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_type b
    ON b.oid = CASE WHEN t.typtype = 'd'::"char" THEN t.typbasetype ELSE t.oid END
LEFT JOIN pg_catalog.pg_extension e ON e.extname = 'vector'::name
LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_type'::regclass::oid
    AND d.objid = b.oid AND d.refclassid = 'pg_catalog.pg_extension'::regclass::oid
    AND d.refobjid = e.oid AND d.deptype = 'e'::"char"
WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
"""
_REFERENCES: Final = """
SELECT conrelid, confrelid FROM pg_catalog.pg_constraint
WHERE contype = 'f'::"char" AND conrelid = ANY ($1::oid[]) AND confrelid = ANY ($1::oid[])
"""
_SEQUENCE: Final = """
SELECT CASE WHEN pg_catalog.has_sequence_privilege($1::text, 'SELECT, USAGE'::text)
    THEN pg_catalog.pg_sequence_last_value($1::text::regclass) END
"""
_SCHEMA_OF_TYPE: Final = re.compile(r'^(?:"(?:[^"]|"")+"|[a-z_0-9$]+)\.')


@dataclass(frozen=True, slots=True)
class Wanted:
    """A table as it is asked for; a schema of None is the database's own."""

    name: str
    schema: str | None

    @property
    def fullname(self) -> str:
        """As SQLAlchemy has it."""
        return self.name if self.schema is None else f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Found:
    """A table as it is there.

    Attributes:
        schema: The one that it is in.
        columns: Those that can be written, in their order.
        casts: The type of each, as SQL has it here.
        required: Those that a row can't do without.
        sequences: Which columns' numbers come from which.
    """

    wanted: Wanted
    oid: int
    schema: str
    relkind: str
    columns: tuple[Column, ...]
    casts: dict[str, str]
    required: frozenset[str]
    sequences: dict[str, str]

    @property
    def sql(self) -> str:
        """Its name in SQL."""
        return qualified(self.schema, self.wanted.name)

    @property
    def names_tables(self) -> bool:
        """Whether it is one of ours whose rows name tables."""
        return self.wanted.schema is None and self.wanted.name in _NAMES_TABLES

    def query(self, columns: Iterable[Column]) -> str:
        """What reads columns as they are written into files."""
        listed = ", ".join(self._read(column) for column in columns)
        return f"SELECT {listed} FROM {_KINDS[self.relkind]}{self.sql}"  # noqa: S608 - quoted

    def _read(self, column: Column) -> str:
        name = qualified(column.name)
        if self._is_place(column):  # of our own schema only the name behind it: a dot comes first
            inside = f"pg_catalog.starts_with({name}, {self._own} || '.'::text)"
            behind = f"pg_catalog.substr({name}, pg_catalog.length({self._own}) + 1)"
            return f"CASE WHEN {inside} THEN {behind} ELSE {name} END AS {name}"
        return f"{name}::text AS {name}" if column.kind in CAST else name

    def put(self, column: Column) -> str:
        """What a staged value becomes in the table."""
        name = qualified(column.name)
        if self._is_place(column):
            inside = f"pg_catalog.starts_with({name}, '.'::text)"
            return f"CASE WHEN {inside} THEN {self._own} || {name} ELSE {name} END"
        return f"{name}::{self.casts[column.name]}" if column.kind in CAST else name

    def _is_place(self, column: Column) -> bool:
        return self.names_tables and column.name == "table_name"

    @property
    def _own(self) -> str:
        return f"pg_catalog.quote_ident({literal(self.schema)}::text)"

    def is_staged(self, columns: Iterable[Column]) -> bool:
        """Whether values have to be cast, and so go through another table."""
        return self.names_tables or any(column.kind in CAST for column in columns)


async def find(driver: Any, wanted: ListOf[Wanted], places: ListOf[str | None]) -> list[Found]:
    """Tables with rows, as they are there.

    Views and foreign tables are left out, and partitions of what is asked for too.

    Args:
        driver: The connection.
        wanted: Which.
        places: The schema of each; None for where the search_path finds it.

    Raises:
        SchemaVersionError: One is not there.
    """
    names = [qualified(place, one.name) for one, place in zip(wanted, places, strict=True)]
    rows = await driver.fetch(_FIND, names)
    if lacking := [one for one, row in zip(wanted, rows, strict=True) if row[0] is None]:
        ours = any(one.schema is None and one.name in own_tables for one in lacking)
        what = "run `qortex-db upgrade`" if ours else "run your own migrations"
        listed = ", ".join(shown(one.fullname) for one in lacking)
        raise SchemaVersionError(f"There is no table {listed}: {what} on this database first.")
    oids = {row[0] for row in rows}
    kept = [
        (one, row)
        for one, row in zip(wanted, rows, strict=True)
        if row[2] in _KINDS and (row[3] in {None, row[0]} or row[3] not in oids)
    ]
    described: dict[int, list[Any]] = {row[0]: [] for _, row in kept}
    for oid, *column in await driver.fetch(_COLUMNS, list(described)):
        described[oid].append(column)
    return [_found(one, row[0], row[1], row[2], described[row[0]]) for one, row in kept]


async def are_there(driver: Any, names: ListOf[str]) -> list[bool]:
    """Which of some names are tables'."""
    return [row[0] is not None for row in await driver.fetch(_FIND, names)]


def _found(wanted: Wanted, oid: int, schema: str, relkind: str, rows: list[Any]) -> Found:
    columns, casts, required, sequences = [], {}, set(), {}
    for name, type_, base, catalogs, pgvectors, enum, modifier, generated, needed, source in rows:
        if generated:
            continue
        kind = kind_of(base, is_catalogs=catalogs, is_pgvectors=pgvectors, is_enum=enum)
        dimensions = modifier if kind in VECTORS and modifier > 0 else None
        columns.append(Column(name, _SCHEMA_OF_TYPE.sub("", type_), kind, dimensions))
        casts[name] = type_
        if needed:
            required.add(name)
        if source is not None:
            sequences[name] = source
    return Found(
        wanted, oid, schema, relkind, tuple(columns), casts, frozenset(required), sequences
    )


async def read_sequences(driver: Any, table: Found) -> tuple[Sequence, ...]:
    """Where a table's numbers are. No snapshot holds them: they may be further than its rows."""
    return tuple(
        [
            Sequence(column, await driver.fetchval(_SEQUENCE, source))
            for column, source in table.sequences.items()
        ]
    )


async def references(driver: Any, tables: ListOf[Found]) -> dict[int, set[int]]:
    """Which of some tables refer to which, by oid."""
    found: dict[int, set[int]] = {table.oid: set() for table in tables}
    for one, other in await driver.fetch(_REFERENCES, list(found)):
        found[one].add(other)
    return found
