"""A filter of one query among several of a statement: its parameters have names of their own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import BindParameter
from sqlalchemy.sql.visitors import replacement_traverse

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from sqlalchemy import ColumnElement

    from qortex_db.filters import Filter, Where
    from qortex_db.repositories.vectors.table import VectorTable


@dataclass(frozen=True, slots=True)
class OwnFilter:
    """A filter of a branch; those of one shape are equal, as their clauses are.

    Attributes:
        name: The branch's.
        number: Of the branch.
        key: The filter's shape; None where it holds an expression of SQLAlchemy's.
    """

    name: str
    number: int
    key: Hashable | None
    filter: Filter = field(compare=False)

    @property
    def clause(self) -> ColumnElement[bool]:
        """The condition, for which the planner needs no values."""
        return self.filter.walked


async def own_filters(
    vectors: VectorTable,
    given: Iterable[tuple[Where | None, Mapping[str, Any] | None, str, int]],
) -> tuple[OwnFilter, ...]:
    """Read the filters of branches, each with its document's, the branch's name and its number.

    Raises:
        LimitExceededError: They have more values, in sum, than one filter may have.
    """
    found: list[OwnFilter] = []
    count = 0
    for where, where_document, name, number in given:
        found.append(await _own_filter(vectors, where, where_document, name, number))
        values = found[-1].filter.params.values()
        count += sum(len(value) if isinstance(value, list) else 1 for value in values)
        vectors.limits.check("max_filter_values", count, "The queries' filters", "values in sum")
    return tuple(found)


async def _own_filter(
    vectors: VectorTable,
    where: Where | None,
    where_document: Mapping[str, Any] | None,
    name: str,
    number: int,
) -> OwnFilter:
    """Read the filter of a branch."""
    narrowed = await vectors.narrow(where, where_document)
    if narrowed is None:
        raise TypeError("There is no filter.")
    names = {key: f"own_{number}_{key}" for key in narrowed.params}

    def renamed(part: Any, **_: Any) -> Any:
        if isinstance(part, BindParameter) and part.key in names:
            return BindParameter(names[part.key], type_=part.type, required=True)
        return None

    params = {names[key]: value for key, value in narrowed.params.items()}
    own = replace(narrowed, params=params)
    # What it would make of its shape has the names of any filter.
    traverse: Any = replacement_traverse  # typed for callables of SQLAlchemy's own
    vars(own)["clause"] = traverse(narrowed.clause, {}, renamed)
    return OwnFilter(name, number, narrowed.key, own)
