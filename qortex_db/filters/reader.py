"""Filters over a payload: dictionaries and SQLAlchemy expressions, read into one clause.

A filter's shape (its paths, operators and kinds of values) is apart from its values, so that a
statement is compiled once for a shape.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from sqlalchemy import ColumnElement, and_, false
from sqlalchemy.sql.elements import Grouping

from qortex_db import messages
from qortex_db.checks import as_dict, check_whole
from qortex_db.errors import InvalidInputError
from qortex_db.filters import columns, conditions, rendering
from qortex_db.filters.columns import ColumnReader, column_named, no_column
from qortex_db.filters.contained import contained
from qortex_db.filters.fields import check_has_payload, check_readable, of_each, read_path
from qortex_db.filters.operators import ELEMENT, NEGATED, OPERATORS, row_ids
from qortex_db.filters.parameters import unseen, with_own_parameters
from qortex_db.filters.partial_indexes import promised
from qortex_db.filters.text_operators import document_contains, document_text
from qortex_db.limits import DEFAULT_LIMITS, Limits
from qortex_db.mirrors import moved, original_of
from qortex_db.sql import func

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Column, Table

    from qortex_db.filters.conditions import Shape
    from qortex_db.filters.fields import Path

Where: TypeAlias = Mapping[str, Any] | ColumnElement[bool]
"""A filter: a dictionary as docs/vectors/filters.md has it, or an expression of SQLAlchemy's."""

MAX_DEPTH: Final = 16
"""How deeply $and, $or, $nor, $not, $min_should and elements of arrays may be nested."""
MAX_CONDITIONS: Final = 256
"""How many conditions one filter may have."""

_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_PLAIN: Final = frozenset({str, int, float, bool})
_LISTS: Final = (list, tuple, set, frozenset)
LONG_LISTS: Final = (
    conditions.is_one_of_many,
    conditions.has_id_of_many,
    columns.is_one_of_many,
)
_OF_FILTERS: Final = ("$and", "$or", "$nor", "$not", "$min_should")
_OF_ROWS: Final = {"$text": document_text, "$id": row_ids}


@dataclass(frozen=True, eq=False)
class Filter:
    """A filter that was read.

    Attributes:
        key: Its shape, hashable; None where it holds an expression of SQLAlchemy's. Filters over
            one table that have the same key have the same clause.
        params: The values of the clause's parameters, `row_where_0` and so on.
        promises: What is true of the rows by partial indexes' own words, with constants: only so
            does the server know that such an index has them all.
    """

    key: Hashable | None
    params: dict[str, Any]
    _shape: Shape = field(repr=False)
    _table: Table = field(repr=False)
    promises: tuple[ColumnElement[bool], ...] = field(default=(), repr=False)

    @functools.cached_property
    def clause(self) -> ColumnElement[bool]:
        """The condition. Its parameters have no values; give `params` on execution."""
        clause = rendering.render(self._shape, self._table, count())
        return and_(*self.promises, clause) if self.promises else clause

    @functools.cached_property
    def planned_once(self) -> ColumnElement[bool]:
        """The same condition, whose values the planner does not see: one plan is good for all.

        Each value is read once, and not for each row.
        """
        return self.clause if self.key is None else unseen(self.clause)

    @functools.cached_property
    def walked(self) -> ColumnElement[bool]:
        """The same, for a walk through an index of vectors, which no list is joined to."""
        if not rendering.has(self._shape, LONG_LISTS):
            return self.planned_once
        return and_(*self.promises, func.coalesce(self.planned_once, false()))

    @property
    def is_served(self) -> bool:
        """Whether the indexes that the table declares find rows by it, or by a part of it."""
        return self.key is not None and rendering.is_served(self._shape, self._table)

    @functools.cached_property
    def served(self) -> ColumnElement[bool] | None:
        """What the indexes that the table declares find rows by; None where they don't.

        It is true of every row that the filter is true of, and planned once.
        """
        if self.key is None:
            return None
        served = rendering.served(self._shape, self._table, count())
        return None if served is None else unseen(served)

    @property
    def matches_all(self) -> bool:
        """Whether it is true of every row by its form, as an empty one is."""
        return rendering.truth(self._shape) is True

    @functools.cached_property
    def has_words(self) -> bool:
        """Whether a $text is in it: without an index, a text is parsed for each row."""
        return rendering.has(self._shape, (conditions.matches, conditions.document_matches))

    def __repr__(self) -> str:
        """Without values."""
        return f"Filter({len(self.params)} parameters)"


def read_filter(
    where: Where,
    table: Table,
    limits: Limits = DEFAULT_LIMITS,
    own: Mapping[str, str] = _NONE,
) -> Filter:
    """Read a filter over a table's payload.

    Args:
        where: An empty dictionary matches every row.
        table: Paths need its column `payload`; $text without a path needs a column `document`.
        limits: Of its values in sum.
        own: By the names that keys of a dictionary have, the keys of the host's own columns.

    Raises:
        InvalidInputError: An operator is unknown, a value has the wrong type, or a limit is passed.
            The message names the place, never a value.
    """
    reader = _Reader(table, limits, own)
    shape = reader.read(where, "where", 0)
    params = {f"row_where_{i}": value for i, value in enumerate(reader.values)}
    if not reader.is_plain:
        return Filter(None, params, shape, table)
    promises = promised(where, table, own)
    key = (shape, *(number for number, _ in promises)) if promises else shape
    return Filter(key, params, shape, table, tuple(clause for _, clause in promises))


def values_of(narrowed: Filter | None) -> Mapping[str, Any]:
    """The parameters of a filter; none where there is no filter."""
    return {} if narrowed is None else narrowed.params


def with_document(where: Where | None, document: Mapping[str, Any] | None) -> Where | None:
    """A filter, and one over the row's document beside it."""
    if document is None:
        return where
    of_document = {"$document": document}
    return of_document if where is None else {"$and": [where, of_document]}


class _Reader:
    """Reads one filter: shapes come back, values are collected."""

    __slots__ = (
        "_limits",
        "_weighed",
        "bytes",
        "conditions",
        "is_plain",
        "number",
        "own",
        "table",
        "values",
        "within",
    )

    def __init__(self, table: Table, limits: Limits, own: Mapping[str, str]) -> None:
        self.table = table
        self.own = own
        self._limits = limits
        self._weighed = 0
        self.bytes = self.number = 0
        self.values: list[Any] = []
        self.conditions = 0
        self.is_plain = True
        self.within = False  # an element of an array

    def read(self, where: object, at: str, depth: int) -> Shape:
        if not isinstance(where, Mapping):
            return self._expression(where, at)
        shapes = []
        for key, value in as_dict(where, name=at).items():
            if not isinstance(key, str):
                raise InvalidInputError(f"{at} has a key of type {type(key).__name__}; pass paths.")
            place = f"{at}[{messages.shown(key, 100)}]"
            if key.startswith("$"):
                shapes.append(self._operator(key, value, place, depth))
            else:
                shapes.append(self._field(key, value, place, depth))
        return shapes[0] if len(shapes) == 1 else ("and", *shapes)

    def _expression(self, where: Any, at: str) -> Shape:
        element = where.__clause_element__() if hasattr(where, "__clause_element__") else where
        if not isinstance(element, ColumnElement):
            raise InvalidInputError(
                f"{at} is a {type(where).__name__}; pass a dict or an expression of SQLAlchemy's."
            )
        if self.within:
            raise InvalidInputError(f"{at} is an expression, which can't look at an element.")
        element = moved(element, original_of(self.table), self.table)
        if any(each != self.table for each in element._from_objects):  # noqa: SLF001
            # Each of this table's rows would be met once for each of the other's.
            raise InvalidInputError(
                f"{at} looks at a table or alias beside {self.table.name}; put what looks at "
                "another one into exists() or a subquery."
            )
        self._count(at)
        self.is_plain = False
        element = with_own_parameters(element, at)
        # In parentheses: an OR in a host's own SQL would reach beyond it, to other namespaces.
        return "sql", Grouping(element)

    def _operator(self, key: str, value: Any, at: str, depth: int) -> Shape:
        if self.within and key not in _OF_FILTERS:
            return self._path("", {key: value}, at, depth)
        if key in _OF_ROWS:
            self._count(at)
            shape = _OF_ROWS[key](self.table, value, at, self.values)
            self._weigh(value, at)
            return shape
        if key in ("$column", "$payload"):
            return self._said(key, value, at, depth)
        self._check_depth(at, depth)
        if key == "$document":
            return self._document(value, at, depth)
        if key == "$not":
            return "not", self.read(value, at, depth + 1)
        if key == "$min_should":
            return self._least(value, at, depth)
        if key not in _OF_FILTERS:
            raise InvalidInputError(
                f"{at} is no operator of a whole filter; pass {', '.join(_OF_FILTERS)}, $id, "
                "$text, $document, $column, $payload or a path (a key that begins with a dollar "
                r"is written \$)."
            )
        if not isinstance(value, (list, tuple)) or not value:
            raise InvalidInputError(f"{at} takes a list of at least one filter.")
        parts = [self.read(part, f"{at}[{i}]", depth + 1) for i, part in enumerate(value)]
        return ("not", ("or", *parts)) if key == "$nor" else (key[1:], *parts)

    def _least(self, value: Any, at: str, depth: int) -> Shape:
        """At least so many of some filters."""
        if not isinstance(value, Mapping) or value.keys() != {"conditions", "min_count"}:
            raise InvalidInputError(f"{at} takes a dict of conditions, a list, and min_count.")
        given = value["conditions"]
        if not isinstance(given, (list, tuple)) or not given:
            raise InvalidInputError(f"{at}['conditions'] takes a list of at least one filter.")
        name = f"{at}['min_count']"
        number = check_whole(value["min_count"], 1, len(given), name=name)
        parts = [
            self.read(part, f"{at}['conditions'][{i}]", depth + 1) for i, part in enumerate(given)
        ]
        if number in (1, len(parts)):
            return ("or" if number == 1 < len(parts) else "and", *parts)
        return ("least", number, *parts)

    def _document(self, where: object, at: str, depth: int) -> Shape:
        """Substrings of the document, as Chroma's users write them."""
        if not isinstance(where, Mapping) or len(where) != 1:
            raise InvalidInputError(
                f"{at} takes a dict of one of $contains, $not_contains, $and and $or."
            )
        ((key, value),) = where.items()
        place = f"{at}[{messages.shown(key, 100)}]" if isinstance(key, str) else at
        if key in ("$and", "$or"):
            self._check_depth(place, depth)
            if not isinstance(value, (list, tuple)) or not value:
                raise InvalidInputError(f"{place} takes a list of at least one filter.")
            parts = [
                self._document(part, f"{place}[{i}]", depth + 1) for i, part in enumerate(value)
            ]
            return (key[1:], *parts)
        if key not in ("$contains", "$not_contains"):
            raise InvalidInputError(
                f"{place} is no operator of a document; pass $contains, $not_contains, $and or $or."
            )
        self._count(place)
        shape = document_contains(self.table, value, place, self.values)
        self._weigh(value, place)
        return shape if key == "$contains" else ("not", shape)

    def _said(self, kind: str, value: Any, at: str, depth: int) -> Shape:
        """Fields that are said to be columns, or keys of the payload."""
        shapes = []
        for key, argument in as_dict(value, name=at).items():
            if not isinstance(key, str):
                raise InvalidInputError(f"{at} has a key of type {type(key).__name__}; pass names.")
            place = f"{at}[{messages.shown(key, 100)}]"
            if kind == "$payload":
                shapes.append(self._path(key, argument, place, depth))
            else:
                shapes.append(
                    self._column(column_named(self.table, key, at), argument, place, depth)
                )
        if not shapes:
            raise InvalidInputError(f"{at} is empty; pass a dict of names.")
        return shapes[0] if len(shapes) == 1 else ("and", *shapes)

    def _field(self, key: str, value: Any, at: str, depth: int) -> Shape:
        if self.within:
            return self._path(key, value, at, depth)
        if key in self.own:
            return self._column(self.table.c[self.own[key]], value, at, depth)
        if "payload" not in self.table.c:
            raise no_column(self.table, key, self.own)
        return self._path(key, value, at, depth)

    def _column(self, column: Column[Any], value: Any, at: str, depth: int) -> Shape:
        reader = ColumnReader(self.table, column, at, self.values)
        return self._operators(value, at, depth, reader.read)

    def _path(self, key: str, value: Any, at: str, depth: int) -> Shape:
        if "[]" in key and (parts := of_each(key)) is not None:
            outer, inner = parts
            path = self._read_path(outer, at)
            return self._some(
                path, {inner: value}, lambda: self._path(inner, value, at, depth + 1), at, depth
            )
        path = self._read_path(key, at)

        def read(name: str, argument: Any, place: str) -> Shape:
            if name == ELEMENT:
                where = as_dict(argument, name=place)
                return self._some(
                    path, where, lambda: self.read(where, place, depth + 1), place, depth
                )
            if (known := OPERATORS.get(name)) is not None:
                return known(self.table, path, argument, place, self.values)
            if (known := NEGATED.get(name)) is not None:
                return "not", known(self.table, path, argument, place, self.values)
            raise InvalidInputError(
                f"{place} is no operator; pass {', '.join(OPERATORS)}, {', '.join(NEGATED)}, "
                f"{ELEMENT} or $not. To compare with a whole object pass $eq."
            )

        return self._operators(value, at, depth, read)

    def _read_path(self, key: str, at: str) -> Path:
        path = read_path(key, within=self.within)
        if not self.within:
            check_has_payload(self.table, at)
            check_readable(self.table, path.steps[0], at)
        return path

    def _some(
        self,
        path: Path,
        where: Mapping[str, Any],
        read: Callable[[], Shape],
        at: str,
        depth: int,
    ) -> Shape:
        """That an element of an array at a path is as a filter says."""
        self._check_depth(at, depth)
        start, outside, self.within = len(self.values), self.within, True
        shape = read()
        self.within = outside
        if outside or path.positional:
            return "some", path, shape
        needed, is_all = contained(path, where)
        shapes: list[Shape] = [("some", path, shape)]
        if is_all:
            del self.values[start:]
            self._weighed = min(self._weighed, start)
            shapes = []
        for texts in needed:
            is_one = len(texts) == 1
            self.values.append(texts[0] if is_one else texts)
            condition = conditions.contains if is_one else conditions.contains_any
            shapes.append((condition, path))
        return shapes[0] if len(shapes) == 1 else ("and", *shapes)

    def _operators(
        self, value: Any, at: str, depth: int, read: Callable[[str, Any, str], Shape]
    ) -> Shape:
        """The operators of one field, all of which have to match."""
        value = as_dict(value, name=at) if isinstance(value, Mapping) else {"$eq": value}
        if not value:
            raise InvalidInputError(f"{at} has no operator; for an empty object pass $eq.")
        shapes: list[Shape] = []
        for name, argument in value.items():
            place = f"{at}[{messages.shown(name, 100)}]" if isinstance(name, str) else at
            if name == "$not":
                self._check_depth(place, depth)
                shapes.append(("not", self._operators(argument, place, depth + 1, read)))
                continue
            self._count(place)
            shapes.append(read(name, argument, place))
            self._weigh(argument, place)
        return shapes[0] if len(shapes) == 1 else ("and", *shapes)

    def _weigh(self, argument: Any, at: str) -> None:
        """What a condition was given, which may be sent in two forms."""
        sent = self.values[self._weighed :]
        self._weighed += len(sent)
        if type(argument) in _PLAIN and len(sent) == 1 and type(sent[0]) is str:  # as most are
            self.number += 1
            self.bytes += len(sent[0])
        else:
            if isinstance(argument, np.ndarray):
                given = argument.size
            else:
                given = len(argument) if isinstance(argument, _LISTS) else 1
            forms = [value if isinstance(value, list) else [value] for value in sent]
            self.number += max([given, *map(len, forms)])
            self.bytes += max(
                (sum([len(v) for v in form if isinstance(v, str)]) for form in forms), default=0
            )
        limits = self._limits
        if self.number > limits.max_filter_values or self.bytes > limits.max_filter_bytes:
            whole = f"At {at} the filter"
            limits.check("max_filter_values", self.number, whole, "values in sum")
            limits.check("max_filter_bytes", self.bytes, whole, "bytes of values in sum")

    def _count(self, at: str) -> None:
        self.conditions += 1
        if self.conditions > MAX_CONDITIONS:
            raise InvalidInputError(
                f"At {at} the filter has more than {MAX_CONDITIONS} conditions."
            )

    def _check_depth(self, at: str, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise InvalidInputError(f"{at[:200]}… is nested more than {MAX_DEPTH} levels deep.")
