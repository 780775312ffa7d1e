"""Whether what came is what there was: counts, a sample of rows, and what searches find."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qortex_db.checks import as_key
from qortex_db.models.vector_spec import DEFAULT_VECTOR
from qortex_db.transfer.source import plain_id
from qortex_db.transfer.translating import is_same_vector
from qortex_db.values.jsonable import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qortex_db.repositories import VectorRepository
    from qortex_db.repositories.vectors.rows.records import VectorRecord
    from qortex_db.transfer.route import Route
    from qortex_db.transfer.source import SourceId, SourceRow

QUERIES: Final = 20
TOP: Final = 10
LEAST_OVERLAP: Final = 0.9
_TIE: Final = 1e-4
"""Scores that are nearer than this are equal: a source may compute in another precision."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A row of the sample that is not as it was.

    Attributes:
        id: The source's.
        fields: Which of its fields; `row` where it is not there at all.
    """

    id: str
    fields: Sequence[str]


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much of what the source's own search finds is found here, by exact searches.

    Attributes:
        vector: The source's name of it.
        queries: How many there were.
        share: Of the source's hits, those that score as well as ours; None where the source has no
            search of its own.
    """

    vector: str
    queries: int
    share: float | None


async def compare_rows(route: Route, rows: Sequence[SourceRow]) -> list[Difference]:
    """The rows of a sample that differ in a field."""
    specs = route.target.specs
    wanted = [route.translator.record(row) for row in rows]
    stored = await route.vectors.get([record.id for record in wanted])
    by_text = {_text(key): record for key, record in stored.items()}
    # What the source has no more is a difference too, unless it has none of it at all.
    documents = route.plan.document is not None or any(
        record.document is not None for record in wanted
    )
    names = [name for name in route.plan.vectors.values() if name != DEFAULT_VECTOR]
    differing = []
    for record in wanted:
        found = by_text.get(_text(record.id))
        fields = ["row"]
        if found is not None:
            fields = _differing(found, record, specs, names, documents=documents)
        if fields:
            differing.append(Difference(str(record.id), fields))
    return differing


def _text(key: Any) -> str:
    return str(as_key(key))


def _differing(
    found: VectorRecord[Any],
    wanted: VectorRecord[Any],
    specs: Any,
    names: Sequence[str],
    *,
    documents: bool,
) -> list[str]:
    fields = []
    half = specs[DEFAULT_VECTOR].storage == "half"
    if not is_same_vector(found.embedding, wanted.embedding, is_half=half):
        fields.append("embedding")
    if not _is_same_json(json.loads(to_json(wanted.payload, name="payload")), found.payload):
        fields.append("payload")
    if documents and found.document != wanted.document:
        fields.append("document")
    for name in names:
        ours, vector = (found.vectors or {}).get(name), (wanted.vectors or {}).get(name)
        if not is_same_vector(ours, vector, is_half=specs[name].storage == "half"):
            fields.append(name)
    return fields


def _is_same_json(theirs: Any, ours: Any) -> bool:
    """Whether two values of JSON say the same: 1e23 comes back as a whole number."""
    if isinstance(theirs, float) and isinstance(ours, int) and not isinstance(ours, bool):
        return theirs == float(ours)
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return theirs.keys() == ours.keys() and all(
            _is_same_json(each, ours[key]) for key, each in theirs.items()
        )
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(theirs) == len(ours) and all(map(_is_same_json, theirs, ours))
    return bool(theirs == ours)


async def compare_searches(route: Route, rows: Sequence[SourceRow]) -> list[Overlap]:
    """Of each vector, how well the best ten of sampled rows' neighbours agree."""
    found = []
    for name, column in route.plan.vectors.items():
        queries = [vector for row in rows if (vector := row.vectors.get(name)) is not None]
        shares: list[float] = []
        for query in queries[:QUERIES]:
            theirs = await route.source.nearest(name, query, TOP)
            if theirs is None:
                break
            ours = route.translator.vector(column, query)
            shares.append(await _share(route.vectors, column, ours, theirs))
        share = sum(shares) / len(shares) if shares else None
        found.append(Overlap(name, len(shares), share))
    return found


async def _share(
    vectors: VectorRepository[Any], column: str, query: Any, theirs: Sequence[SourceId]
) -> float:
    """How many of a source's hits score as well here as the last of ours."""
    options: dict[str, Any] = {"exact": True, "with_payload": False}
    if column != DEFAULT_VECTOR:
        options["using"] = column
    best = await vectors.search(query, limit=TOP, **options)
    if not best:
        return 1.0 if not theirs else 0.0
    least = best[-1].score
    where = {"$id": list(map(plain_id, theirs))}
    scored = await vectors.search(query, limit=TOP, where=where, **options)
    tie = _TIE * max(1.0, abs(least))
    return sum(hit.score >= least - tie for hit in scored) / len(best)
