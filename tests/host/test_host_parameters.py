"""Expressions of a host's in `where=`, with parameters of its own."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import bindparam, event, exists, select

from qortex_db import Database, InvalidInputError, QortexVector
from qortex_db.models import InteroceptionFactor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PACKAGE = Path(__file__).parents[2] / "qortex_db"
VECTOR = [1.0] + [0.0] * 7
ROWS = [
    {"id": k, "embedding": VECTOR, "payload": {"kind": k, "n": 1}, "document": f"of {k}"}
    for k in "abc"
]
OURS = sorted(
    {
        *re.findall(
            r"bindparam\(\s*\"(\w+)\"", " ".join(p.read_text() for p in PACKAGE.rglob("*.py"))
        ),
        *("query", "candidates", "oversampled", "row_where_0", "row_namespace", "row_ids", "row_0"),
        *("param_1", "id_1", "document_1", "hits_1"),
    }
)

CALLS = {
    "count": lambda v, where: v.count(where=where),
    "search": lambda v, where: v.search(VECTOR, where=where),
    "exact": lambda v, where: v.search(VECTOR, where=where, exact=True),
    "search_many": lambda v, where: v.search_many([VECTOR, VECTOR], where=where),
    "multi_search": lambda v, where: v.multi_search([VECTOR, VECTOR], where=where),
    "hybrid_search": lambda v, where: v.hybrid_search(VECTOR, "of", where=where),
    "recommend": lambda v, where: v.recommend([VECTOR], where=where),
    "mmr_search": lambda v, where: v.mmr_search(VECTOR, where=where),
    "range_search": lambda v, where: v.range_search(VECTOR, min_score=0.5, where=where),
    "search_groups": lambda v, where: v.search_groups(VECTOR, "kind", where=where),
    "scroll": lambda v, where: v.scroll(where=where),
    "facet": lambda v, where: v.facet("kind", where=where),
    "merge_payload": lambda v, where: v.merge_payload({"n": 2}, where=where),
    "delete_where": lambda v, where: v.delete_where(where),
}


@asynccontextmanager
async def alone(db: Database) -> AsyncIterator[Any]:
    yield db.vectors


@asynccontextmanager
async def watched(db: Database) -> AsyncIterator[Any]:
    event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
    yield db.vectors


@asynccontextmanager
async def together(db: Database) -> AsyncIterator[Any]:
    async with db.unit_of_work() as uow:
        yield uow.vectors


def of(name: str, **options: Any) -> Any:
    return QortexVector.id == bindparam(name, "b", **options)


def among(name: str) -> Any:
    return QortexVector.id.in_(bindparam(name, ["b"], expanding=True))


def inside(name: str) -> Any:
    other = select(InteroceptionFactor.node_id).where(
        InteroceptionFactor.node_id == bindparam(name, "b"),
        InteroceptionFactor.node_id == QortexVector.id,
    )
    return exists(other)


@pytest.mark.parametrize("lane", [alone, watched, together], ids=lambda f: f.__name__)
async def test_a_hosts_parameters_meet_none_of_ours(db: Database, lane: Any) -> None:
    assert len(OURS) > 50
    await db.factors.save({"a": 1.0, "b": 1.0})
    told: dict[str, set[str]] = {name: set() for name in CALLS}
    async with lane(db) as vectors:
        for call, run in CALLS.items():
            every = call in ("search", "merge_payload", "delete_where")
            forms = [of(name) for name in (OURS if every else OURS[::10])]
            forms += [of(name, literal_execute=True) for name in ("query", "x", "hits")]
            forms += [among("query"), inside("query"), of("query") & of("query")]
            forms.append(QortexVector.id == bindparam("query", "b", unique=True))
            for where in forms:
                await vectors.upsert(ROWS)
                told[call].add(re.sub(r"(_at|took)=[^,)]*\)?", "", repr(await run(vectors, where))))
    assert {name: len(said) for name, said in told.items()} == dict.fromkeys(CALLS, 1)
    assert told["count"] == {"1"} == told["delete_where"] == told["merge_payload"]
    assert "('b', 1.0)" in told["search"].pop()


async def test_a_parameter_without_a_value_is_refused_by_name(db: Database) -> None:
    with pytest.raises(InvalidInputError, match=r"'query'.*without a value"):
        await db.vectors.count(where=QortexVector.id == bindparam("query"))
