"""A table of vectors as its repositories see it: what it holds, and how it is asked."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import Text as SqlText
from sqlalchemy import bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import OID
from sqlalchemy.sql import column, table

from qortex_db import observability, types
from qortex_db.engine import TableFacts
from qortex_db.errors import UPGRADE_HINT, InvalidInputError, SchemaVersionError
from qortex_db.repositories import validation
from qortex_db.repositories.search_statements import SearchStatements
from qortex_db.search import Filter, Where, read_filter, read_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Select, Table

    from qortex_db.engine import Executor

_attributes = table("pg_attribute", column("attrelid"), column("attname"), column("atttypmod"))
_attributes.schema = "pg_catalog"
_TYPMOD = select(_attributes.c.atttypmod).where(
    _attributes.c.attrelid == cast(func.to_regclass(bindparam("table_name", type_=SqlText)), OID),
    _attributes.c.attname == "vec",
)


class VectorTable:
    """One table, by one executor."""

    def __init__(self, executor: Executor, table: Table) -> None:
        self.executor = executor
        self.table = table
        self.searches = searches_for(table)

    def narrow(self, where: Where | None, params: dict[str, Any]) -> Filter | None:
        """A filter, its values put among the parameters; None where there is none."""
        if where is None:
            return None
        narrowed = read_filter(where, self.table)
        params |= narrowed.params
        return narrowed

    def steps(self, path: object, name: str) -> tuple[str, ...]:
        if "payload" not in self.table.c:
            raise InvalidInputError(f"The table {self.table.name} has no column payload.")
        return read_path(validation.check_text(path, name=name)).steps

    async def rows(self, statement: Select[Any], params: Mapping[str, Any]) -> Sequence[Any]:
        start = time.perf_counter()
        rows = (await self.executor.run(statement, params)).rows
        observability.vec_search_duration.record(time.perf_counter() - start)
        return rows

    async def facts(self) -> TableFacts:
        """What is known of the table, looked up once for each engine.

        Raises:
            SchemaVersionError: There is no such table.
        """
        known = await self.executor.catalog()
        name = self.qualified_name
        if name not in known:
            rows = (await self.executor.run(_TYPMOD, {"table_name": name})).rows
            if not rows:
                raise SchemaVersionError(
                    f"There is no table {name} with a column vec here: {UPGRADE_HINT}, or write a "
                    f"migration that creates it: CREATE TABLE {name} (id text PRIMARY KEY, "
                    f"vec vector(384)).",
                    sqlstate="42P01",
                )
            known[name] = TableFacts(None if rows[0][0] < 0 else int(rows[0][0]))
        return known[name]

    @functools.cached_property
    def qualified_name(self) -> str:
        """As `to_regclass` takes it."""
        parts = (self.table.schema or self.executor.schema, self.table.name)
        return ".".join('"' + part.replace('"', '""') + '"' for part in parts if part)

    def encode(self, embedding: object, facts: TableFacts, name: str = "embedding") -> bytes:
        array = types.as_float32(embedding, name=name)
        types.check_dimensions(array, facts.dimensions, name=name)
        types.check_values(array, name=name)
        return types.encode(array)


@functools.cache
def searches_for(table: Table) -> SearchStatements:
    """The searches of a table, the same object at every call."""
    return SearchStatements(table)
