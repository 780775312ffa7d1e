"""What the values of payloads come to, in all or group by group."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - pydantic resolves annotations
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, get_args

from sqlalchemy import Column

from qortex_db import checks, messages
from qortex_db.errors import InvalidInputError
from qortex_db.filters import values_of
from qortex_db.repositories import validation
from qortex_db.repositories.validation import MAX_LIMIT
from qortex_db.repositories.vectors.rows.records import IdT, PathInput
from qortex_db.repositories.vectors.statements.aggregate_statements import (
    AggregateName,
    Wanted,
    aggregates,
)
from qortex_db.repositories.vectors.table import TableBound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qortex_db.filters import Where

MAX_AGGREGATED: Final = 32
"""The most paths of one `aggregate`."""

_NAMES: Final = get_args(AggregateName)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What the values of some rows come to.

    Attributes:
        value: That the rows of the group have; None of all rows.
        count: How many rows they are.
        of: By path, or the column's name, what was asked for by name: exact, whole numbers as int;
            None where there is no value for it.
    """

    value: Any
    count: int
    of: Mapping[str, Mapping[AggregateName, Any]] = field(default_factory=dict)


class VectorAggregates(TableBound[IdT]):
    """What computes with the values of many rows."""

    async def aggregate(
        self,
        paths: Mapping[str, Sequence[AggregateName]] | Mapping[PathInput, Sequence[AggregateName]],
        *,
        group_by: PathInput | None = None,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        limit: int = 100,
    ) -> list[Aggregate]:
        """What values of payloads or columns come to, of all rows or group by group: a scan.

        Missing values and nulls count nowhere; of an array each element is a value.
        What is not described here is as of :meth:`search`.

        Args:
            paths: What is wanted of which, as `{"price": ["min", "mean"], "tags": ["distinct"]}`,
                up to `MAX_AGGREGATED`. "mean", "median" and "sum" are of the numbers; "min" and
                "max" too, or where there is none, of the strings by code point, as ISO dates want
                it. "count" and "distinct" are of all values, which are the same as filters have it.
                A column is named, or given as `Item.price`: what it has comes in its own type, of
                a Numeric the mean, median and sum too; "min" and "max" are as it is ordered.
            group_by: A path or a column, as of :meth:`search_groups`.
            where: Only these rows.
            limit: The most groups, 1 to `MAX_LIMIT`.

        Returns:
            The largest groups first, then by value; one of all rows without `group_by`.

        Raises:
            InvalidInputError: A path is asked for twice or for nothing, or cannot be read.
        """
        vectors = self._vectors
        count = validation.check_limit(limit, MAX_LIMIT)
        asked = _read(paths)
        wanted: Wanted = tuple(
            (vectors.place(path, f"paths[{messages.shown(name)}]"), names)
            for name, (path, names) in asked.items()
        )
        steps = None if group_by is None else vectors.place(group_by, "group_by")
        narrowed = await vectors.narrow(where, where_document)
        statement = aggregates(vectors.by_filter, narrowed, wanted, steps)
        rows = await vectors.rows(statement, {"hits": count, **values_of(narrowed)})
        told = []
        for value, size, *found in rows:
            values = iter(found)
            of = {
                name: dict(zip(names, values, strict=False)) for name, (_, names) in asked.items()
            }
            told.append(Aggregate(value, size, of))
        return told


def _read(paths: object) -> dict[str, tuple[object, tuple[AggregateName, ...]]]:
    """What is wanted of which, by names."""
    given = checks.as_dict(paths, name="paths", of="dict of what is wanted by path")
    validation.check_limit(len(given), MAX_AGGREGATED, name="the number of paths")
    read: dict[str, tuple[object, tuple[AggregateName, ...]]] = {}
    for path, names in given.items():
        element = path.__clause_element__() if hasattr(path, "__clause_element__") else path
        if isinstance(element, Column):
            called = element.name
        else:
            called = checks.check_text(path, name="a path of paths")
        at = f"paths[{messages.shown(called)}]"
        if called in read:
            raise InvalidInputError(f"{at} is asked for twice, by its name and as a column.")
        listed = validation.check_list(names, name=at, of=f"list of {', '.join(_NAMES)}")
        if not listed:
            raise InvalidInputError(f"{at} is empty; ask for some of {', '.join(_NAMES)}.")
        for i, name in enumerate(listed):
            checks.check_choice(name, _NAMES, name=f"{at}[{i}]")
        read[called] = path, tuple(dict.fromkeys(listed))
    return read
