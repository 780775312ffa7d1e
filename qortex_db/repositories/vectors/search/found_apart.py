"""The candidates of a search whose rows lie on several nodes of Citus.

There a subquery that finds the nearest refers to nothing beside it: so each query has its own, the
settings come before the statement, and what falls short is told by a count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import null, select, union_all

from qortex_db.filters.expressions import Constant
from qortex_db.repositories.vectors.search.nearest import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement, Select, Subquery

    from qortex_db.repositories.vectors.search.nearest import Branch, SearchForm


def found_apart(
    branches: Sequence[Branch],
    form: SearchForm,
    clause: ColumnElement[bool] | None,
    besides: Sequence[ColumnElement[bool]] = (),
) -> list[Subquery]:
    """As `found`: the candidates of each branch, by its queries one by one."""
    return [
        union_all(*_of_branch(branch, i, form, clause, besides)).subquery(f"_found_{i}")
        for i, branch in enumerate(branches)
    ]


def _of_branch(
    branch: Branch,
    number: int,
    form: SearchForm,
    clause: ColumnElement[bool] | None,
    besides: Sequence[ColumnElement[bool]],
) -> Iterator[Select[Any]]:
    for place, query in enumerate(_queries(branch, form), start=1):
        numbers = [] if branch.queries is None else [Constant(place).label("number")]

        def near(*conditions: ColumnElement[bool], exact: bool) -> Select[Any]:
            return branch.rows.nearest(
                form,
                clause,
                query=query,  # noqa: B023 - called at once
                then_by=branch.then_by,
                besides=[*besides, *branch.only, *conditions],
                exact=exact,
            )

        if form.exact:
            hits = near(exact=True).subquery()
            yield select(*numbers, *hits.c)
            continue
        walked = near(exact=False).cte(f"_hits_{number}_{place}")
        short = count_of(walked) < branch.rows.candidates
        if form.bounded:
            yield select(*numbers, *walked.c)
            mark = select(count_of(walked).label("count")).subquery()
            nulls = [null() for _ in walked.c]
            yield (
                select(*numbers, *nulls)
                .select_from(mark)
                .where(mark.c.count < branch.rows.candidates)
            )
        else:
            yield select(*numbers, *walked.c).where(~short)
            every = near(short, exact=True).subquery()
            yield select(*numbers, *every.c)


def _queries(branch: Branch, form: SearchForm) -> Iterator[ColumnElement[Any] | None]:
    """Each query of a branch; None for the parameter of its rows."""
    queries = branch.queries
    if queries is None:
        yield branch.query
        return
    for place in range(1, form.queries + 1):
        yield select(queries.c.query).where(queries.c.number == Constant(place)).scalar_subquery()
