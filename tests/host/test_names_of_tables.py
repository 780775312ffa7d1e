"""A host's table may be called as a part of a statement of ours might be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy.orm import DeclarativeBase

from qortex_db import Collection, Database, FieldBoost, InvalidInputError, VectorMixin, VectorSpec
from qortex_db.testing import create_all

NAMES = ("settings", "few", "rare", "hits_0", "short_0", "found", "best", "keys", "page", "words")
Q = [1.0] + [0.0] * 7


class Host(DeclarativeBase):
    """A host's own base."""


MODELS = [
    type(
        name.title(),
        (VectorMixin, Host),
        {"__tablename__": name, "__collection__": Collection(VectorSpec(8))},
    )
    for name in NAMES
]


async def test_reads_and_writes_are_those_of_any_other_table(dsn: str) -> None:
    await create_all(dsn, Host.metadata)
    answers = []
    async with Database.connect(dsn) as db:
        for model in MODELS:
            vectors = db.collection(model)
            rows = [
                {"id": f"{i}", "embedding": [1.0, i] + [0.0] * 6, "payload": {"n": i % 7}}
                for i in range(300)
            ]
            await vectors.upsert([row | {"document": f"word {row['id']}"} for row in rows])
            found = [
                await vectors.search(Q, where={"n": 3}, limit=20),
                await vectors.search(Q, boost=FieldBoost("n"), ef_search=50),
                await vectors.search_many([Q, Q], where={"n": {"$lt": 2}}),
                await vectors.hybrid_search(Q, "word 7"),
                await vectors.recommend(["3"], ["200"]),
                (await vectors.scroll(order_by="n", where={"n": {"$gte": 5}}, limit=20)).records,
                await vectors.facet("n"),
                await vectors.aggregate({"n": ["sum"]}, group_by="n"),
                await vectors.count_words(),
                await vectors.hybrid_search(None, "word 7"),
                await vectors.update_many([{"id": "1", "payload": {"n": 100}}]),
                await vectors.merge_payload({"m": 1}, where={"n": 4}),
                await vectors.delete(["1", "2"]),
                await vectors.count(),
            ]
            answers.append([re.sub(r"counted_at='[^']*'", "", repr(one)) for one in found])
    assert all(answer == answers[0] for answer in answers)


async def test_a_collection_is_opened_by_the_name_of_its_table(dsn: str) -> None:
    await create_all(dsn, Host.metadata)
    async with Database.connect(dsn) as db, db.unit_of_work() as uow:
        await uow.collection("settings").upsert([{"id": "a", "embedding": Q}])
        assert await uow.collection(MODELS[0]).count() == 1
        await uow.collection("qortex_vectors").upsert([{"id": "a", "embedding": Q}])
        assert await uow.vectors.count() == 1
        with pytest.raises(InvalidInputError, match="import the module"):
            uow.collection("nowhere")

        class Other(DeclarativeBase):
            """Another base of the same host's."""

        again = type(
            "Again",
            (VectorMixin, Other),
            {"__tablename__": "few", "__collection__": Collection(VectorSpec(8))},
        )
        with pytest.raises(InvalidInputError, match=r"Several models.*Again.*Few"):
            uow.collection("few")
        assert uow.collection(again)


def test_no_part_of_a_statement_is_called_as_a_table_might_be() -> None:
    text = "\n".join(path.read_text() for path in Path("qortex_db/repositories").rglob("*.py"))
    assert not re.findall(r'\.(?:cte|subquery|lateral|alias)\(f?"[a-z{]', text)
