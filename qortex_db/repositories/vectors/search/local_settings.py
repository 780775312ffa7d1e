"""Settings of pgvector for the searches of one statement, by `set_config` within it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, cast, select, true

from qortex_db.filters.expressions import Constant
from qortex_db.repositories.vectors.search.nearest import count_of
from qortex_db.sql import Text, func

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import CTE


def settings_of(names: tuple[str, ...], many: CTE | None) -> CTE:
    """Set what searches are run under, and keep what was: nothing where few rows are compared.

    A search has to refer to it, or the planner runs the search first. The old values are put back
    because in a unit of work they would stay for the rest of its transaction.
    """
    keys = [Constant(name) for name in names]
    old = [func.current_setting(key, true()).label(f"old_{i}") for i, key in enumerate(keys)]
    before = select(*old).cte("_before").prefix_with("MATERIALIZED")
    values = [cast(bindparam(name.partition(".")[2]), Text) for name in names]
    go, *others = [func.set_config(*pair, true()) for pair in zip(keys, values, strict=True)]
    new = [go.label("go"), *(each.label(f"new_{i}") for i, each in enumerate(others))]
    source = before if many is None else before.join(many, true())
    statement = select(*before.c, *new).select_from(source)
    return statement.cte("_settings").prefix_with("MATERIALIZED")


def restored(settings: CTE, names: tuple[str, ...], all_hits: Sequence[CTE]) -> CTE:
    """Put the old settings back, once all searches are done."""
    put_back = [
        func.set_config(Constant(name), settings.c[f"old_{i}"], true()).label(f"restored_{i}")
        for i, name in enumerate(names)
    ]
    done = [count_of(hits) >= Constant(0) for hits in all_hits]
    return select(*put_back).where(*done).cte("_restored").prefix_with("MATERIALIZED")
