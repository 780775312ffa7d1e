"""The indexes of payloads, on the expressions that filters render."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from sqlalchemy import Index, Table
from sqlalchemy.sql.elements import Grouping
from sqlalchemy.sql.visitors import cloned_traverse

from qortex_db.checks import check_text
from qortex_db.errors import InvalidInputError
from qortex_db.filters.fields import Field, Path, check_readable, read_path
from qortex_db.filters.full_text import TEXT_CONFIGURATION, check_configuration, words
from qortex_db.mirrors import original_of
from qortex_db.names import MAX_NAME_BYTES, index_name, is_plain

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

Kind: TypeAlias = Literal[
    "keyword", "integer", "float", "datetime", "instant", "bool", "text", "containment", "document"
]
"""What a payload index is for. integer and float are one index, and so are keyword and datetime:
JSON has one kind of number, and dates in it are strings. An instant is what such a string tells,
whatever its offset."""

_DECLARED: Final = "qortex_db_payload"
DECLARATION: Final = "qortex_db_payload_index"
"""The key, in an index's info, of the path, kind and language that it was declared with."""


def payload_index(
    table: Table, path: str, kind: Kind, *, language: str = "simple", name: str | None = None
) -> Index:
    """The index that serves filters, declared on a table for Alembic or `index.create()` to make.

    Equality looks at declared indexes: on a path with one of its type it uses that, elsewhere the
    containment index. So declare what the database has.

    Args:
        path: As in a filter; "" for the kinds containment (one index for every path) and document.
        language: Of the kinds text and document; a filter has to name the same.
        name: Made from table, path and kind unless given.

    Raises:
        InvalidInputError: The table, the path, the kind or the language was refused.
    """
    check_text(path, name="path")
    if not isinstance(kind, str) or kind not in get_args(Kind):
        raise InvalidInputError(
            f"kind is no kind of index; pass one of {', '.join(get_args(Kind))}."
        )
    _check_table(table, "document" if kind == "document" else "payload")
    check_configuration(language, "language")
    if name is not None:
        check_text(name, name="name")
    if (kind in ("containment", "document")) != (path == ""):
        raise InvalidInputError(
            f"An index of kind {kind} is on {'the whole' if path else 'a'} path: pass "
            f"{'an empty path' if path else 'one'}."
        )
    if kind == "document":
        check_readable(table, None, "The index")
    elif path:
        check_readable(table, read_path(path).steps[0], "The index")
    name = name or _name(f"ix_{table.name}_payload", path, kind, language)
    info: dict[str, Any] = {DECLARATION: (path, kind, language)}
    if kind == "containment":
        return Index(
            name,
            table.c.payload,
            postgresql_using="gin",
            postgresql_ops={table.c.payload.key: "jsonb_path_ops"},
            info=info,
        )
    if kind == "document":
        table.info[TEXT_CONFIGURATION] = language
        vector = words(table.c.document, language)
        return Index(name, _shown(vector), postgresql_using="gin", info=info)
    field = Field(table, read_path(path).steps)
    if kind == "text":
        vector = words(field.string, language)
        return Index(name, _shown(vector), postgresql_using="gin", info=info)
    column = _COLUMNS[kind]
    info[_DECLARED] = (field.steps, column)
    return Index(name, _shown(getattr(field, column)), info=info)


def _shown(expression: ColumnElement[Any]) -> Grouping[Any]:
    """As the server shows it, without its own schema: Alembic compares indexes as texts."""

    def strip(function: Any) -> None:
        function.packagenames = ()

    return Grouping(cloned_traverse(expression, {}, {"function": strip}))


_COLUMNS = {
    "keyword": "keyword",
    "datetime": "keyword",
    "instant": "instant",
    "integer": "number",
    "float": "number",
    "bool": "boolean",
}


def _check_table(table: object, column: str) -> None:
    if not isinstance(table, Table):
        raise InvalidInputError(f"table is a {type(table).__name__}; pass a Table.")
    if column not in table.c:
        raise InvalidInputError(f"The table has no column {column}, which such an index is on.")


def is_declared(table: Table, path: Path, column: str) -> bool:
    """Whether the table declares an index on this column of `Field`."""
    if path.within:
        return False
    wanted = (path.steps, column)
    return any(index.info.get(_DECLARED) == wanted for index in original_of(table).indexes)


def has_kind(table: Table, kind: Kind) -> bool:
    """Whether the table declares an index of a kind."""
    return any(
        index.info.get(DECLARATION, ("", ""))[1] == kind for index in original_of(table).indexes
    )


def _name(start: str, path: str, kind: str, language: str) -> str:
    end = kind if language == "simple" else f"{kind}_{language}"
    name = "_".join(part for part in (start, path, end) if part)
    if is_plain(name) and len(name) <= MAX_NAME_BYTES:
        return name
    # Other characters become "_", which two paths may share.
    return index_name(name, re.sub(r"[^A-Za-z0-9]+", "_", name))
