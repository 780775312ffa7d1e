"""Expressions written as an index has them, and as the server shows them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ARRAY, Integer
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import Case, ColumnElement, Grouping
from sqlalchemy.sql.visitors import InternalTraversal

from qortex_db.sql import Text

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.types import TypeEngine

_SPECIAL = re.compile(r"[\x01-\x1f!-,./:-@[-^`{-\x7f]")


class Constant(ColumnElement[Any]):
    """A constant of the statement: an index on an expression is no use to one with a parameter."""

    inherit_cache = True
    _traverse_internals = [("value", InternalTraversal.dp_plain_obj)]  # noqa: RUF012 - SQLAlchemy's

    def __init__(self, value: str | int | tuple[str, ...]) -> None:
        self.value = value
        self.type = _CONSTANTS[type(value)]


_CONSTANTS: Final[dict[type, TypeEngine[Any]]] = {
    str: Text(),
    int: Integer(),
    tuple: ARRAY(Text()),
}


@compiles(Constant)
def _compile_constant(element: Constant, _: SQLCompiler, **__: object) -> str:
    value = element.value
    if isinstance(value, tuple):
        if not value:
            return "'{}'::text[]"
        return f"ARRAY[{', '.join(map(_quoted, value))}]"
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    """A literal that is one whatever the server's settings, and that SQLAlchemy leaves alone.

    It replaces what looks like `%(name)s` or `__[POSTCOMPILE_name]` in its finished statements.
    """
    escaped = _SPECIAL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    return f"'{text}'" if escaped == text else f"E'{escaped}'"


class Readable(Constant):
    """A constant with nothing in it to be escaped."""

    inherit_cache = True


@compiles(Readable)
def _compile_readable(element: Readable, _: SQLCompiler, **__: object) -> str:
    return f"'{element.value}'"


class Configuration(Constant):
    """A text search configuration by its name."""

    inherit_cache = True


@compiles(Configuration)
def _compile_configuration(element: Configuration, _: SQLCompiler, **__: object) -> str:
    return f"{_quoted(str(element.value))}::regconfig"


class ShownCase(Case[Any]):
    """A CASE written as the server shows it, line breaks included.

    Alembic compares the indexes of a database and of the models as texts.
    """

    inherit_cache = True


@compiles(ShownCase)
def _compile_case(element: ShownCase, compiler: SQLCompiler, **options: Any) -> str:
    condition, value = (
        compiler.process(part.element if isinstance(part, Grouping) else part, **options)
        for part in element.whens[0]
    )
    return f"\nCASE\n    WHEN {condition} THEN {value}\n    ELSE NULL\nEND"
