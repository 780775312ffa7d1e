"""SQLAlchemy's `func` and `Text`, whose meaning no schema on the search_path can change.

PostgreSQL takes the best match of all schemas, wherever pg_catalog stands: whoever may create in
one of them could plant `strpos(text, varchar)` for a parameter that is sent as VARCHAR, or
`unnest(text[])`, which is nearer than `unnest(anyarray)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeGuard

import sqlalchemy
from sqlalchemy.dialects.postgresql import JSONB, dialect

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import ColumnElement, TypeDecorator, func
    from sqlalchemy.types import TypeEngine

_SYNTAX: Final = {"all", "any", "array", "coalesce", "extract", "greatest", "least", "nullif"}
"""They look like functions, and are none."""
of_pgvector: Final = sqlalchemy.func
"""The functions in the extension's schema, which are of exactly its own types."""
DIALECT: Final[Any] = dialect()  # type: ignore[no-untyped-call]
"""What a host's types are asked by, where there is no engine."""


class Text(sqlalchemy.Text):
    """`text`, of which a parameter is sent as TEXT: SQLAlchemy makes VARCHAR of all strings."""

    render_bind_cast = True

    def adapt(self, cls: Any, **kw: Any) -> Any:  # noqa: ARG002
        return super().adapt(type(self), **kw)  # it is what the driver's dialect would make of it


def double(value: float) -> ColumnElement[float]:
    """A constant of `double precision`; `1.0` is one of `numeric`."""
    return sqlalchemy.literal_column(f"{value}::float8", sqlalchemy.Float)


def json_parameter(name: str) -> ColumnElement[Any]:
    """A parameter that is JSON as text: a connection's codec of jsonb may be a host's own.

    It is read once, however many rows look into it.
    """
    given = sqlalchemy.cast(sqlalchemy.bindparam(name, type_=Text), JSONB)
    return sqlalchemy.type_coerce(sqlalchemy.select(given).scalar_subquery(), JSONB)


def is_text(kind: Any) -> bool:
    """Whether values of a column's type are texts, as far as it says."""
    try:
        return issubclass(stored_type(kind).python_type, str)
    except NotImplementedError:  # a host's own, or citext: the server's to judge
        return True


def as_text(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """A varchar as text, which has operators of its own; whatever else as it is.

    An index on a varchar serves it as well.
    """
    kind = value.type
    is_varchar = isinstance(kind, sqlalchemy.String) and not isinstance(
        kind, (sqlalchemy.Text, sqlalchemy.Enum)
    )
    return sqlalchemy.cast(value, Text) if is_varchar else value


def is_decorated(kind: TypeEngine[Any]) -> TypeGuard[TypeDecorator[Any]]:
    """Whether a host made this type; SQLAlchemy's own, such as Interval, bring a processor."""
    decorator = sqlalchemy.TypeDecorator
    return isinstance(kind, decorator) and type(kind).bind_processor is decorator.bind_processor


def stored_type(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """What is below the types that a host made."""
    while is_decorated(kind):
        kind = kind.load_dialect_impl(DIALECT)
    return kind


def as_jsonb(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """JSON that was stored as a text, as jsonb, which has operators; whatever else as it is."""
    kind = stored_type(value.type)
    is_plain = isinstance(kind, sqlalchemy.JSON) and not isinstance(kind, JSONB)
    return sqlalchemy.cast(value, JSONB) if is_plain else value


class _PgCatalog:
    def __getattr__(self, name: str) -> Callable[..., Any]:
        make = getattr(sqlalchemy.func, name)
        if name in _SYNTAX:
            return make  # type: ignore[no-any-return]

        def made(*arguments: Any, **options: Any) -> Any:
            function = make(*arguments, **options)
            # Of several arrays, `unnest` is syntax too.
            if name != "unnest" or len(arguments) == 1:
                function.packagenames = ("pg_catalog",)
            return function

        return made


if not TYPE_CHECKING:
    func = _PgCatalog()

__all__ = [
    "DIALECT",
    "Text",
    "as_jsonb",
    "as_text",
    "double",
    "func",
    "is_decorated",
    "is_text",
    "json_parameter",
    "of_pgvector",
    "stored_type",
]
