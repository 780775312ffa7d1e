"""A statement as the driver takes it: compiled by SQLAlchemy once, then run without its cursor.

The cursor and result of SQLAlchemy cost more than asyncpg and the server together on a read by
key. Its compiler and its types' processors are kept, so that both lanes mean the same.
"""

from __future__ import annotations

import copy
import functools
import secrets
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import ARRAY, Float, Numeric, TypeDecorator
from sqlalchemy.sql import quoted_name

from qortex_db.engine.executor import catalog_of
from qortex_db.names import qualified

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection, Dialect, Engine, Executable

_PLACE: Final = f"place_{secrets.token_hex(16)}"
"""How the schemas begin that others are put in the place of; nobody can have it in a text."""
_FLOAT8: Final = 701
_NUMERIC: Final = 1700


@functools.cache
def _place(declared: str | None) -> quoted_name:
    return quoted_name(f"{_PLACE}_{declared or ''}", quote=True)


def places(declared: Iterable[str | None]) -> dict[str | None, str | None]:
    """A translation of schemas into those that `Compiled.placed` replaces."""
    return {each: _place(each) for each in declared}


def compiled(
    statement: Executable, engine: Engine | Connection, schemas: Mapping[str | None, str | None]
) -> Compiled:
    """A statement over the tables of some schemas, compiled once for an engine.

    Once for all that is derived from it, whatever its schemas are.
    """
    key = (Compiled, frozenset(schemas))
    kept: WeakKeyDictionary[Any, Compiled]
    kept = catalog_of(engine).setdefault(key, WeakKeyDictionary())
    found = kept.get(statement)
    if found is None:
        found = kept[statement] = Compiled(statement, engine.dialect, places(schemas))
    return found.placed(schemas) if schemas else found


class Compiled:
    """SQL, what makes its arguments from parameters, and what reads its rows.

    Attributes:
        expands: It has an IN over a list, or a literal, which SQLAlchemy writes at each execution.
    """

    __slots__ = ("_arguments", "_readers", "expands", "returns_rows", "sql")

    def __init__(
        self, statement: Executable, dialect: Dialect, schemas: Mapping[str | None, str | None]
    ) -> None:
        compilable: Any = statement
        options = (
            {"schema_translate_map": schemas, "render_schema_translate": True} if schemas else {}
        )
        compiled = compilable.compile(dialect=dialect, **options)
        self.sql: str = compiled.string
        self.expands = bool(compiled.post_compile_params or compiled.literal_execute_params)
        self._arguments = []
        for name in compiled.positiontup or ():
            bind = compiled.binds[name]
            process = bind.type.dialect_impl(dialect).bind_processor(dialect)
            self._arguments.append((bind.key, bind.effective_value, process))
        # A text() names no columns, and returns rows as far as we write any.
        columns = list(getattr(statement, "exported_columns", ()))
        self.returns_rows = bool(columns) or not hasattr(statement, "exported_columns")
        self._readers = []
        for i, column in enumerate(columns):
            kind = column.type
            read = kind.dialect_impl(dialect).result_processor(dialect, _number(kind))
            if read is not None:
                self._readers.append((i, read))

    def placed(self, schemas: Mapping[str | None, str | None]) -> Compiled:
        """The same over the tables of some schemas, of what was compiled for `places`."""
        made = copy.copy(self)
        for declared, schema in schemas.items():
            place = f"{qualified(_place(declared))}."
            made.sql = made.sql.replace(place, "" if schema is None else f"{qualified(schema)}.")
        return made

    @property
    def size(self) -> int:
        """How many arguments it has."""
        return len(self._arguments)

    def arguments(self, params: Mapping[str, Any]) -> list[Any]:
        """The values of `$1`, `$2` and so on."""
        values = []
        for key, default, process in self._arguments:
            value = params.get(key, default)
            values.append(value if process is None else process(value))
        return values

    def rows(self, records: Sequence[Any]) -> Sequence[Any]:
        """The driver's records as SQLAlchemy's types read them."""
        if not self._readers:
            return records
        rows = []
        for record in records:
            row = list(record)
            for i, read in self._readers:
                row[i] = read(row[i])
            rows.append(row)
        return rows


def _number(kind: Any) -> int | None:
    """The OID that the driver would report of a number's type: its reader asks for that."""
    while isinstance(kind, (TypeDecorator, ARRAY)):
        kind = kind.item_type if isinstance(kind, ARRAY) else kind.impl_instance
    if isinstance(kind, Float):
        return _FLOAT8
    return _NUMERIC if isinstance(kind, Numeric) else None
