"""The rows that a repository is about: all of a table, or those of one namespace."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import String, bindparam
from sqlalchemy import Text as SqlText

from qortex_db.errors import InvalidInputError
from qortex_db.filters.expressions import Constant
from qortex_db.markers import ALL_NAMESPACES
from qortex_db.models.collection import collection_of
from qortex_db.repositories.statement_cache import MAX_TABLES
from qortex_db.sql import Text, as_text
from qortex_db.values.column_values import check_attribute

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Column, ColumnElement, Table

NAMESPACE: Final = "row_namespace"
"""The parameter of statements about one namespace."""


class Scope:
    """What statements say of the namespace; made once for each form, so that they are too.

    Attributes:
        column: The namespace's; None where statements are about the whole table.
        value: The namespace: a parameter, or a constant for a large one, since the server uses an
            index of its rows alone only where the statement says which they are.
        clauses: What a row has to satisfy, none or one.
    """

    def __init__(self, table: Table, value: ColumnElement[Any] | None) -> None:
        self.column: Column[Any] | None = None
        self.value = value
        self.clauses: tuple[ColumnElement[bool], ...] = ()
        if value is not None:
            self.column = table.c[collection_of(table).namespace or ""]
            self.clauses = (as_text(self.column) == as_text(value),)


@functools.lru_cache(MAX_TABLES)
def _whole(table: Table) -> Scope:
    return Scope(table, None)


@functools.lru_cache(MAX_TABLES)
def _one_of_many(table: Table, column: str) -> Scope:
    kind = table.c[column].type
    # A host's own type makes something of a value.
    is_string = type(kind) in (String, SqlText)
    return Scope(table, bindparam(NAMESPACE, type_=Text() if is_string else kind))


@functools.lru_cache(MAX_TABLES)
def _large(table: Table, namespace: str | int) -> Scope:
    return Scope(table, Constant(namespace))


def scope_of(table: Table, namespace: object) -> tuple[Scope, Mapping[str, Any]]:
    """The scope of a namespace, or of the table, and the parameters that go with it.

    Raises:
        InvalidInputError: The table has no namespaces, or no such; or one has to be named.
    """
    collection = collection_of(table)
    if collection.namespace is None:
        if namespace is not None:
            raise InvalidInputError(
                f"{table.name} has no namespaces: declare Collection(…, namespace='tenant')."
            )
        return _whole(table), {}
    if namespace is None:
        everybody = "" if collection.namespace_in_key else " (ALL_NAMESPACES for everybody's)"
        raise InvalidInputError(
            f"{table.name} has the rows of many: say whose are meant, by collection(…, "
            f"namespace=…){everybody}."
        )
    if namespace is ALL_NAMESPACES:
        if collection.namespace_in_key:
            raise InvalidInputError(
                f"An id of {table.name} may come again in another namespace: say which, by "
                "collection(…, namespace=…)."
            )
        return _whole(table), {}
    if namespace == "":
        raise InvalidInputError("namespace is empty, which is nobody's name.")
    value = check_attribute(table.c[collection.namespace], namespace, "namespace")
    for large in collection.large_namespaces:
        if str(value) == str(large):  # of a UUID too
            return _large(table, large), {}
    return _one_of_many(table, collection.namespace), {NAMESPACE: value}
