"""The columns that are written beside a row's id and vector: what each takes, and how it is sent.

They are the payload, the document, the further vectors, and the columns of the host's own. Each is
one array in a bulk statement, and one parameter in an update of one row.
"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from sqlalchemy import ARRAY, JSON, Enum, TypeDecorator, bindparam, case, cast, null, select, text
from sqlalchemy.dialects.postgresql import JSONB

from qortex_db import checks, messages, types
from qortex_db.errors import InvalidInputError
from qortex_db.filters.expressions import Constant
from qortex_db.limits import DEFAULT_LIMITS, Limits
from qortex_db.markers import CLEAR
from qortex_db.models.collection import attribute_key, collection_of
from qortex_db.models.vector_spec import DEFAULT_VECTOR, Storage, VectorSpec
from qortex_db.repositories import validation
from qortex_db.repositories.statement_cache import MAX_TABLES
from qortex_db.repositories.vectors.rows.records import ReadAttributes
from qortex_db.sql import Text, as_text, func, is_decorated, stored_type
from qortex_db.types import Embedding, EncodedEmbeddings, HalfEmbedding, SparseEmbedding
from qortex_db.values.column_values import sent_attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

    from sqlalchemy import Column, ColumnElement, Table
    from sqlalchemy.types import TypeEngine

RecordPart: TypeAlias = Literal["payload", "document", "vectors", "attributes"]
"""The field of a `VectorRecord` that a column's value comes from."""


Convert: TypeAlias = "Callable[[ColumnElement[Any]], ColumnElement[Any]]"


class _Missing(enum.Enum):
    MISSING = enum.auto()


MISSING: Final = _Missing.MISSING
"""What a record says nothing of: a stored row keeps what it has, a new one gets the default."""


@dataclass(frozen=True, slots=True, eq=False)
class WrittenColumn:
    """A column beside id and vector.

    Attributes:
        check: Refuses a value, or makes of it what is sent.
        element: The type of what is sent.
        convert: Makes the column's value of that, where the types differ.
        default: What a new row gets where nothing is given, as SQL; None for NULL.
        make: The same, made in Python for each row.
        limits: Of what a value may be.
        seal: Encrypts what was checked, where the collection says so.
    """

    column: Column[Any]
    part: RecordPart
    check: Callable[[Any, str], Any]
    element: TypeEngine[Any]
    convert: Convert | None = None
    default: ColumnElement[Any] | None = None
    make: Callable[[], Any] | None = None
    limits: Limits = DEFAULT_LIMITS
    seal: Callable[[str], str] | None = None

    @property
    def is_always_written(self) -> bool:
        """Whether the model, and not the server, knows what a new row gets."""
        return self.part == "attributes" and self.column.default is not None

    def sent(self, value: Any, name: str) -> Any:
        """What is sent of a value.

        Raises:
            InvalidInputError: The column does not take it.
        """
        if value is not CLEAR:
            made = self.check(value, name)
            if type(made) is str and self.part != "payload":  # which has limits of its own
                self.limits.check_text("max_document_bytes", made, name)
            return made if self.seal is None else self.seal(made)
        if self.part == "payload":
            raise InvalidInputError(f"{name} is CLEAR, and no payload is NULL: pass {{}}.")
        if not self.column.nullable:
            raise InvalidInputError(f"{name} is CLEAR, and the column takes no NULL.")
        return None

    def value(self, sent: ColumnElement[Any]) -> ColumnElement[Any]:
        """The column's value."""
        return sent if self.convert is None else self.convert(sent)

    def array(self, parameter: str) -> ColumnElement[Any]:
        """The parameter with a value of each row."""
        kind: TypeEngine[Any] = ARRAY(self.element, dimensions=1)
        if isinstance(self.element, Embedding):
            kind = EncodedEmbeddings()
        # With its type, or what the host's own types make of a value would be left out.
        return cast(bindparam(parameter, type_=kind), kind)

    def single(self, parameter: str) -> ColumnElement[Any]:
        """The value of one row."""
        return self.value(cast(bindparam(parameter, type_=self.element), self.element))

    @property
    def has_equality(self) -> bool:
        """Whether two of its values can be compared: json's have none."""
        kind = stored_type(self.column.type)
        return not isinstance(kind, JSON) or isinstance(kind, JSONB)

    def comparable(self, value: ColumnElement[Any]) -> ColumnElement[Any]:
        """What tells whether a value changes.

        json has no equality, and an enum and an array any enum's and array's, to which one that a
        stranger planted would be nearer.
        """
        kind = stored_type(self.column.type)
        as_it_is = self.has_equality and not isinstance(kind, (Enum, ARRAY))
        return as_text(value) if as_it_is else cast(value, Text)


@functools.lru_cache(MAX_TABLES)
def written_columns(table: Table, limits: Limits = DEFAULT_LIMITS) -> Mapping[str, WrittenColumn]:
    """The columns of a table that records write, by name."""
    collection = collection_of(table)
    columns = {}
    if "payload" in table.c:
        columns["payload"] = WrittenColumn(
            table.c.payload,
            "payload",
            functools.partial(_check_payload, limits),
            Text(),
            lambda sent: func.coalesce(cast(sent, JSONB), text("'{}'::jsonb")),
        )
    if "document" in table.c:
        columns["document"] = WrittenColumn(table.c.document, "document", _check_text, Text())
    for name, spec in collection.vectors.items():
        if name != DEFAULT_VECTOR:
            columns[name] = _vector(table.c[name], spec)
    for name in collection.attributes:
        column = table.c[name]
        if column.computed is None and column.identity is None:
            columns[name] = _attribute(column)
    return {name: replace(column, limits=limits) for name, column in columns.items()}


def named_values(
    written: Mapping[str, WrittenColumn], part: RecordPart, values: object, name: str
) -> Iterable[tuple[str, Any]]:
    """The pairs of a record's `vectors` or `attributes`.

    Raises:
        InvalidInputError: There is no such column, or it can't be written.
    """
    given = checks.as_dict(values, name=name)
    keys = {key: key for key in given}
    if part == "attributes":
        # Of a model with VectorMixin a column has its own name.
        keys = {key: own if (own := attribute_key(key)) in written else key for key in given}
    if isinstance(values, ReadAttributes):
        given = {key: value for key, value in given.items() if keys[key] in written}
    for key in given:
        if keys[key] not in written or written[keys[key]].part != part:
            known = [one.column.name for one in written.values() if one.part == part]
            has = f"it has {', '.join(known)}" if known else "it has none"
            shown = messages.shown(key) if isinstance(key, str) else f"a {type(key).__name__}"
            raise InvalidInputError(
                f"{name} names {shown}, which the collection does not have or can't write; {has}."
            )
    return [(keys[key], value) for key, value in given.items()]


def _check_payload(limits: Limits, value: object, name: str) -> str:
    return validation.check_payload(value, name=name, limits=limits)


def _check_text(value: object, name: str) -> str:
    return checks.check_text(value, name=name)


def _vector(column: Column[Any], spec: VectorSpec) -> WrittenColumn:
    kind = spec.type
    allow_zero = spec.metric != "cosine"
    if isinstance(kind, SparseEmbedding):

        def check_sparse(value: object, name: str) -> str | None:
            return None if value is None else kind.to_text(value, name=name, allow_zero=allow_zero)

        return WrittenColumn(
            column,
            "vectors",
            check_sparse,
            Text(),
            lambda sent: cast(sent, SparseEmbedding()),
        )

    def check(value: object, name: str) -> bytes | None:
        if value is None:
            return None
        return types.checked(
            value,
            dimensions=spec.dimensions,
            allow_zero=allow_zero,
            is_half=spec.is_half,
            name=name,
        )

    return WrittenColumn(
        column,
        "vectors",
        check,
        Embedding(),
        (lambda sent: cast(sent, HalfEmbedding())) if spec.storage == "half" else None,
    )


_STORAGES: Final[Mapping[type, Storage]] = {
    Embedding: "full",
    HalfEmbedding: "half",
    SparseEmbedding: "sparse",
}


def _attribute(column: Column[Any]) -> WrittenColumn:
    kind = column.type
    default, make = _defaults(column)
    check: Callable[[Any, str], Any] = functools.partial(sent_attribute, column)
    storage = _STORAGES.get(type(kind))
    if storage is not None:  # a vector that no search is about
        spec = VectorSpec(kind.dimensions, "l2", storage, index=None)  # type: ignore[attr-defined]
        return replace(_vector(column, spec), part="attributes", default=default, make=make)
    stored = stored_type(kind)
    element: TypeEngine[Any] = stored
    convert: Convert | None = None
    if isinstance(stored, (JSON, Enum)):
        element, convert = Text(), lambda sent: cast(sent, stored)
    elif isinstance(stored, ARRAY):
        # An array of arrays would be taken apart as a whole: each goes as JSON.
        element, convert = Text(), lambda sent: _from_json_array(sent, stored)
    if is_decorated(kind):
        convert = _decorated(kind, convert)
    return WrittenColumn(column, "attributes", check, element, convert, default, make)


def _decorated(kind: TypeDecorator[Any], inner: Convert | None) -> Convert:
    """What a host's type makes of a value in SQL; SQLAlchemy leaves it out of arrays."""

    def convert(sent: ColumnElement[Any]) -> ColumnElement[Any]:
        value = sent if inner is None else inner(sent)
        made = kind.bind_expression(value)  # type: ignore[arg-type]
        return value if made is None else made

    return convert


def _from_json_array(sent: ColumnElement[Any], kind: ARRAY[Any]) -> ColumnElement[Any]:
    elements = func.jsonb_array_elements_text(cast(sent, JSONB)).column_valued()
    array = func.array(select(elements).scalar_subquery())
    return case((sent.is_not(None), cast(array, kind)), else_=null())


class Touched:
    """The host's columns with an `onupdate`: each changed row gets theirs, as SQLAlchemy gives it.

    SQLAlchemy's own way makes values while it executes, which a call by itself passes by, and
    leaves them out of ON CONFLICT.
    """

    def __init__(self, written: Mapping[str, WrittenColumn]) -> None:
        self._sql: dict[str, ColumnElement[Any]] = {}
        self._make: dict[str, tuple[str, Callable[[], Any]]] = {}
        for number, (name, one) in enumerate(written.items()):
            own: Any = one.column.onupdate
            if own is None:
                continue
            value, make = generated(own)
            if make is not None:
                parameter = f"row_touch_{number}"
                value = one.single(parameter)
                self._make[name] = (parameter, _checked(one, make))
            if value is not None:
                self._sql[name] = value

    def values(self, without: Container[str] = ()) -> dict[str, ColumnElement[Any]]:
        """SQL for those that are not given."""
        return {name: value for name, value in self._sql.items() if name not in without}

    def params(self, without: Container[str] = ()) -> dict[str, Any]:
        """The parameters of that SQL."""
        return {key: make() for name, (key, make) in self._make.items() if name not in without}


@functools.lru_cache(MAX_TABLES)
def touched_columns(table: Table) -> Touched:
    """Those of a table, the same object at every call."""
    return Touched(written_columns(table))


def _checked(one: WrittenColumn, make: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: one.check(make(), one.column.name)


def _defaults(column: Column[Any]) -> tuple[ColumnElement[Any] | None, Callable[[], Any] | None]:
    """What a new row gets: SQL of the server's or the model's, or what the model makes in Python.

    SQLAlchemy's own would be made once for all rows of a statement.
    """
    own: Any = column.default
    if own is not None:
        return generated(own)
    given: Any = getattr(column.server_default, "arg", None)
    return Constant(given) if isinstance(given, str) else given, None


def generated(own: Any) -> tuple[ColumnElement[Any] | None, Callable[[], Any] | None]:
    """What a default of a model's is: SQL, or what makes a value in Python."""
    if own.is_sequence:
        return own.next_value(), None
    if own.is_clause_element:
        return own.arg, None
    return None, (lambda: own.arg(None)) if own.is_callable else (lambda: own.arg)
