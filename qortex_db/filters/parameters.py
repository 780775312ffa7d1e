"""The parameters of clauses: under names of their own, with values, or unseen by the planner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Cast, bindparam, cast, select
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.visitors import iterate, replacement_traverse

from qortex_db import messages
from qortex_db.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement


def with_own_parameters(element: ColumnElement[Any], at: str) -> ColumnElement[Any]:
    """An expression whose parameters have no names: a host's, or a column's, may be one of ours."""
    own: dict[str, BindParameter[Any]] = {}
    for bind in iterate(element):
        if not isinstance(bind, BindParameter):
            continue
        if bind.required:
            raise InvalidInputError(
                f"{at} has a parameter {messages.shown(bind.key, 100)} without a value; give it "
                "one: bindparam(name, value)."
            )
        own[bind.key] = bindparam(
            None,
            bind.effective_value,
            bind.type,
            unique=True,
            expanding=bind.expanding,
            literal_execute=bind.literal_execute,
        )
    if not own:
        return element

    def nameless(part: Any, **_: Any) -> Any:
        return own.get(part.key) if isinstance(part, BindParameter) else None

    replace: Any = replacement_traverse  # typed for callables of SQLAlchemy's own
    found: ColumnElement[Any] = replace(element, {}, nameless)
    return found


def with_values(clause: ColumnElement[Any], params: Mapping[str, Any]) -> ColumnElement[Any]:
    """A clause whose parameters have their values, and names that no other clause's have."""

    def valued(part: Any, **_: Any) -> Any:
        if not isinstance(part, BindParameter) or part.key not in params:
            return None
        return bindparam(None, params[part.key], part.type, unique=True)

    replace: Any = replacement_traverse  # typed for callables of SQLAlchemy's own
    found: ColumnElement[Any] = replace(clause, {}, valued)
    return found


def unseen(clause: ColumnElement[bool]) -> ColumnElement[bool]:
    """A condition whose parameters are read by subqueries of their own."""

    def read(part: Any, **_: Any) -> Any:
        value = part.clause if isinstance(part, Cast) else part
        if not isinstance(value, BindParameter):
            return None
        once = select(part).scalar_subquery()
        # Of a subquery ANY would take the rows.
        return cast(once, part.type) if isinstance(part.type, ARRAY) else once

    replace: Any = replacement_traverse  # typed for callables of SQLAlchemy's own
    found: ColumnElement[bool] = replace(clause, {}, read)
    return found
