"""Keys of several columns: one text on the way, and the columns themselves wherever it counts.

A row's key is the JSON of an array, as the server writes it: `[7, "a"]`. What is compared with the
key is taken apart, so that the key's own index serves.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import Column, Select, literal_column, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import CollectionAggregate
from sqlalchemy.sql.functions import FunctionElement

from qortex_db.errors import InvalidInputError
from qortex_db.sql import Text, func
from qortex_db.values.keys import KeyType, TextKey, key_kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.sql.compiler import SQLCompiler


class CompositeKey(TextKey):
    """Keys of several columns, as tuples.

    Args:
        kinds: Of its columns.
    """

    least = None
    is_composite = True

    def __init__(self, kinds: Sequence[KeyType]) -> None:
        self._kinds = tuple(kinds)
        self.type = Text()

    def check(self, value: object, *, name: str = "id") -> Any:
        count = len(self._kinds)
        if not isinstance(value, tuple) or len(value) != count:
            raise InvalidInputError(
                f"{name} is a {type(value).__name__}; pass a tuple of {count}, the key's columns."
            )
        parts = [
            kind.check(part, name=f"{name}[{i}]")
            for i, (kind, part) in enumerate(zip(self._kinds, value, strict=True))
        ]
        return json.dumps(parts, ensure_ascii=False, default=str)

    def check_cursor(self, value: object) -> Any:
        parts = json.loads(value) if isinstance(value, str) else value
        return self.check(tuple(parts) if isinstance(parts, list) else parts)

    def all_plain(self, values: Sequence[object]) -> bool:
        return not values

    def is_key(self, value: object) -> bool:
        return isinstance(value, tuple)

    def read(self, sent: Any) -> Any:
        parts = zip(self._kinds, json.loads(sent), strict=True)
        return tuple(kind.check(part) for kind, part in parts)

    def order(self, sent: Any) -> Any:
        return json.loads(sent)

    def apart(self, sent: ColumnElement[Any]) -> list[ColumnElement[Any]]:
        """The values of the columns in a key that is one text."""
        array = sqlalchemy.cast(sent, JSONB)
        texts = [
            array.op("->>", return_type=Text())(literal_column(str(i)))
            for i in range(len(self._kinds))
        ]
        return [
            sqlalchemy.cast(text, kind.type) for kind, text in zip(self._kinds, texts, strict=True)
        ]


class _CompositeText(Text):
    """The type of such a key; of a table's own it is compared column by column."""

    def __init__(self, key: CompositeKey) -> None:
        super().__init__()
        self.key = key

    class Comparator(Text.Comparator[str]):
        """Takes apart what the columns are compared with."""

        def operate(self, op: Any, *other: Any, **options: Any) -> Any:
            mine: Any = self.expr
            value: Any = other[0] if other else None
            if not isinstance(mine, CompositeColumn):
                if not isinstance(value, CompositeColumn) or op is not operators.eq:
                    return super().operate(op, *other, **options)
                mine, value = value, mine
            if op not in _COMPARED:
                return super().operate(op, *other, **options)
            columns = tuple_(*mine.parts)
            several = _several(value)
            if several is not None:
                rows = select(*mine.key_type.apart(several))
                return columns.not_in(rows) if op is operators.ne else columns.in_(rows)
            return op(columns, tuple_(*mine.key_type.apart(value)))

    comparator_factory = Comparator


_COMPARED = (operators.eq, operators.ne, operators.gt, operators.lt, operators.in_op)


def _several(value: Any) -> ColumnElement[Any] | None:
    """What gives the keys of ANY, ALL or IN, one a row; None of a single key."""
    if isinstance(value, CollectionAggregate):
        return func.unnest(value.element).column_valued("each")
    if isinstance(value, FunctionElement) and value.name in {"any", "all"}:
        return func.unnest(*value.clauses).column_valued("each")
    if isinstance(value, Select):
        (key,) = value.subquery().c
        return key
    return None


class CompositeColumn(Column[Any]):
    """The key of a mirror: no column of the table's, but an expression over several.

    Args:
        parts: Columns of the mirror.
    """

    inherit_cache = True
    _constructor = Column  # of what stands for it in an alias

    def __init__(self, parts: Sequence[Column[Any]]) -> None:
        self.parts = list(parts)
        self.key_type = CompositeKey([key_kind(part) for part in parts])
        super().__init__("composite key", _CompositeText(self.key_type), key="id")


@compiles(CompositeColumn)
def _compile(element: CompositeColumn, compiler: SQLCompiler, **options: Any) -> str:
    options.pop("add_to_result_map", None)
    return compiler.process(packed(element.parts), **options)


def packed(parts: Sequence[ColumnElement[Any]]) -> ColumnElement[Any]:
    """Values of the columns as one text."""
    return sqlalchemy.cast(func.jsonb_build_array(*parts), Text)
