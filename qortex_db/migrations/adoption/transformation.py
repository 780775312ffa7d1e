"""The SQL that makes the tables that are there what the baseline makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy.dialects import postgresql

from qortex_db.migrations.adoption.baseline import TABLES, VECTORS, BaselineTable, Column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qortex_db.migrations.adoption.inspection import FoundTable, Inspection

CREATE_EXTENSION: Final = "CREATE EXTENSION IF NOT EXISTS vector"
quote: Final = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]


def statements(found: Inspection, dimensions: int) -> list[str]:
    """What is to be done in the transaction, in its order; catalogue only, but for NOT NULL."""
    return [line for table in TABLES for line in _statements(found, table, dimensions)]


def _statements(found: Inspection, expected: BaselineTable, dimensions: int) -> Iterator[str]:
    table = found.tables.get(expected.name)
    if table is None:
        yield _create_table(found, expected, dimensions)
        if expected.index is not None:
            yield index_definition(found, expected)
        return
    alter = f"ALTER TABLE {qualified(found, expected.name)}"
    for column in expected.columns:
        if column.name in table.columns and (old := table.columns[column.name].name) != column.name:
            yield f"{alter} RENAME COLUMN {quote(old)} TO {quote(column.name)}"
    if table.key is not None and table.key.name != expected.key_name:
        yield f"{alter} RENAME CONSTRAINT {quote(table.key.name)} TO {expected.key_name}"
    changes = [change for column in expected.columns for change in _changes(table, column)]
    if changes:
        yield f"{alter} {', '.join(changes)}"
    yield from _index(found, table)


def _changes(table: FoundTable, column: Column) -> Iterator[str]:
    found = table.columns.get(column.name)
    if found is None:
        return
    alter = f"ALTER COLUMN {quote(column.name)}"
    if found.default != column.default:
        yield (
            f"{alter} DROP DEFAULT"
            if column.default is None
            else (f"{alter} SET DEFAULT {column.default}")
        )
    if found.not_null != column.not_null:
        # SET reads the table under the exclusive lock, a part of what the checksum takes there.
        yield f"{alter} {'SET' if column.not_null else 'DROP'} NOT NULL"


def _index(found: Inspection, table: FoundTable) -> Iterator[str]:
    shape = table.expected.index
    if shape is None:
        return
    index = table.index()
    concurrently = table.expected is VECTORS  # it is built, or mended, after the transaction
    if index is not None and (index.valid or concurrently):
        if index.name != shape.name:
            yield f"ALTER INDEX {qualified(found, index.name)} RENAME TO {shape.name}"
        return
    if index is not None:
        yield f"DROP INDEX {qualified(found, index.name)}"
    if not concurrently:
        yield index_definition(found, table.expected)


def _create_table(found: Inspection, expected: BaselineTable, dimensions: int) -> str:
    lines = []
    for column in expected.columns:
        if column.optional:
            continue
        kind = column.type
        if kind == "vector":
            kind = f"{extended(found, kind)}({dimensions})"
        default = f" DEFAULT {column.default}" if column.default is not None else ""
        lines.append(f"{column.name} {kind}{default}{' NOT NULL' if column.not_null else ''}")
    lines.append(f"CONSTRAINT {expected.key_name} PRIMARY KEY ({', '.join(expected.key)})")
    return f"CREATE TABLE {qualified(found, expected.name)} ({', '.join(lines)})"


def index_definition(found: Inspection, expected: BaselineTable) -> str:
    """The statement that makes a table's index."""
    shape = expected.index
    if shape is None:
        raise ValueError(f"{expected.name} has no index")
    columns = ", ".join(shape.columns)
    if expected is VECTORS:
        columns += f" {extended(found, shape.operator_class)}"
    return (
        f"CREATE INDEX {shape.name} ON {qualified(found, expected.name)} "
        f"USING {shape.method} ({columns})"
    )


def kept(found: Inspection) -> Iterator[str]:
    """What a host added and keeps."""
    for table in found.tables.values():
        ours = table.index()
        for index in table.indexes:
            if index is not ours:
                state = "" if index.valid else " (invalid: it is written to and serves no search)"
                yield f"{table.name}: {index.definition}{state}"
        yield from (f"{table.name}: {line}" for line in table.kept)


def replaced(found: Inspection) -> Iterator[str]:
    """What is replaced, since our revisions comment on each column."""
    for table in found.tables.values():
        for column in table.columns.values():
            if column.comment is not None:
                yield f"the comment of {table.name}.{column.name} is replaced: {column.comment}"


def names(found: Inspection) -> str:
    """The tables that are there, in the order in which they are locked."""
    return ", ".join(qualified(found, name) for name in found.tables)


def qualified(found: Inspection, name: str) -> str:
    """A name with its schema, quoted where need be."""
    return f"{quote(found.schema)}.{quote(name)}"


def extended(found: Inspection, name: str) -> str:
    """A name of pgvector's, with its schema where that is known already."""
    return name if found.extension is None else f"{quote(found.extension)}.{name}"
