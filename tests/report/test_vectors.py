"""What the report has of vectors: against plain SQL, and what its page leaves out."""

from __future__ import annotations

import base64
import re
from typing import Any

import asyncpg
import numpy as np
import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    Collection,
    Database,
    InvalidInputError,
    Settings,
    VectorMixin,
    VectorSpec,
    migrations,
)
from qortex_db.report import collections, maps, page, read, samples
from qortex_db.testing import create_all
from qortex_db.types import Embedding
from support.catalogue import execute

UNTOLD = "never on a page"


class Base(DeclarativeBase):
    pass


class Letter(VectorMixin, Base):
    __tablename__ = "letters"
    __collection__ = Collection(VectorSpec(3), namespace="tenant", namespace_in_key=True)


class Sealed(VectorMixin, Base):
    __tablename__ = "sealed"
    __collection__ = Collection(VectorSpec(3, metric="l2"), encrypted=("colour",))


class Plain(Base):
    __tablename__ = "plain"
    __collection__ = Collection(VectorSpec(2, index=None, column="vec"), id="key")
    key: Mapped[int] = mapped_column(primary_key=True)
    vec: Mapped[Any] = mapped_column(Embedding(2))


def rows(count: int) -> list[dict[str, Any]]:
    """Three clusters, of which a key of the payloads tells, among others that tell less."""
    rng = np.random.default_rng(3)
    centres = np.eye(8) * 4
    return [
        {
            "id": f"r{number}",
            "embedding": (centres[number % 3] + rng.normal(size=8) * 0.1).tolist(),
            "payload": {
                "kind": ("ä", "<b>b</b>", "c")[number % 3],
                "all": "one",
                "each": f"{UNTOLD} {number}",
                "uneven": "yes" if number == 0 else "no",
                "long": UNTOLD * 10,
                "deep": {"er": ("x", "y")[number % 2]},
            },
            "document": UNTOLD,
        }
        for number in range(count)
    ]


async def test_the_sizes_the_health_and_the_recall_are_those_of_the_table(
    db: Database, dsn: str
) -> None:
    await db.vectors.ingest(rows(60))
    await execute(
        dsn,
        "UPDATE pg_index SET indisvalid = false "
        "WHERE indexrelid = 'ix_qortex_vectors_words'::regclass",
    )
    (found,) = (await read(db)).collections
    connection = await asyncpg.connect(dsn)
    size = await connection.fetchval("SELECT pg_total_relation_size('qortex_vectors')")
    sizes = await connection.fetch(
        "SELECT indexrelid::regclass::text AS name, pg_relation_size(indexrelid) AS size "
        "FROM pg_index WHERE indrelid = 'qortex_vectors'::regclass"
    )
    await connection.close()
    assert (found.name, found.rows, found.bytes) == ("qortex_vectors", 60, size)
    assert {one.name: one.bytes for one in found.indexes} == {
        row["name"]: row["size"] for row in sizes
    }
    assert [one.name for one in found.indexes if not one.is_valid] == ["ix_qortex_vectors_words"]
    assert "8 dimensions" in found.vectors["vec"]
    assert found.recall is not None
    assert (found.recall.recall, found.recall.sample) == (1.0, 20)
    html = page(await read(db))
    assert "invalid: build it anew" in html
    assert "100.0% of the true 10 nearest" in html


async def test_a_map_shows_what_is_alike_together(db: Database) -> None:
    await db.vectors.ingest(rows(90))
    (found,) = (await read(db)).collections
    assert found.map is not None
    assert found.map.field == "kind"
    assert sorted(found.map.groups) == ["<b>b</b>", "c", "ä"]
    assert sum(found.map.shares) > 0.95
    centres = [
        found.map.points[[at for at, group in enumerate(found.map.group) if group == one]]
        for one in range(3)
    ]
    for one in centres:
        assert np.ptp(one, axis=0).max() < 0.4  # of 2, from end to end
    (again,) = (await read(db)).collections
    assert again.map is not None
    assert np.array_equal(again.map.points, found.map.points)


async def test_a_page_has_no_value_of_a_payload_but_those_of_its_colours(db: Database) -> None:
    await db.vectors.ingest(rows(30))
    html = page(await read(db))
    assert UNTOLD not in html
    assert "r29" not in html
    assert "&lt;b&gt;b&lt;/b&gt;" in html
    assert "<b>b</b>" not in html
    chosen = page(await read(db, colour="deep.er"))
    assert "Map by deep.er" in chosen
    assert "&lt;b&gt;" not in chosen
    assert re.search(r">x</span>", chosen)
    nothing = page(await read(db, colour="nowhere"))
    assert "Map</h4>" in nothing
    with pytest.raises(InvalidInputError):
        await read(db, colour="a..b")


async def test_a_large_table_is_sampled_and_not_probed(
    db: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collections, "MOST_PROBED", 1_000)
    await execute(
        dsn,
        "DROP INDEX ix_qortex_vectors_vec",
        "INSERT INTO qortex_vectors (id, vec, payload) SELECT i::text, "
        "ARRAY(SELECT sin(i * j) FROM generate_series(1, 8) j)::vector, "
        "jsonb_build_object('third', i % 3) FROM generate_series(1, 30000) i",
        "CREATE INDEX ix_qortex_vectors_vec ON qortex_vectors USING ivfflat "
        "(vec vector_cosine_ops) WITH (lists = 3)",
    )
    report = await read(db)
    (found,) = report.collections
    assert found.recall is None
    assert "more than 1,000 rows" in found.recall_note
    assert found.map is not None
    assert len(found.map.group) == samples.MAP_ROWS
    assert found.map.rows == 30_000
    assert sorted(found.map.groups) == ["0", "1", "2"]
    assert len(page(report)) < 60_000


async def test_collections_of_every_kind_are_told(dsn: str) -> None:
    await create_all(dsn, Base.metadata)
    key = base64.urlsafe_b64encode(bytes(32)).decode()
    settings = Settings(dsn=dsn, encryption_keys=key)
    async with Database.connect(settings) as db:
        three = [{"id": f"{n}", "embedding": [1, n, n % 2]} for n in range(5)]
        for tenant in "ab":
            await db.collection(Letter, namespace=tenant).upsert(three)
        painted = [{**row, "payload": {"colour": "red"}} for row in three]
        await db.collection(Sealed).upsert(painted)
        plain = db.collection(Plain)
        await plain.upsert([{"id": n, "embedding": [1.0, n]} for n in range(4)])
        report = await read(db, models=[Letter, Sealed, Plain])
        hidden = await read(db, models=[Sealed], colour="colour")
    found = {one.name: one for one in report.collections}
    assert list(found) == ["qortex_vectors", "letters", "sealed", "plain"]
    assert not [one.fault for one in report.collections if one.fault]
    assert (found["letters"].rows, found["plain"].rows) == (10, 4)
    assert "namespaces" in found["letters"].recall_note
    assert "No index" in found["plain"].recall_note
    assert "too few" in found["qortex_vectors"].map_note
    drawn = [name for name, one in found.items() if one.map is not None]
    assert drawn == ["letters", "sealed", "plain"]
    assert found["sealed"].map is not None
    assert found["sealed"].map.field is None
    assert "stored encrypted" in hidden.collections[1].map_note
    page(report)


async def test_a_table_that_is_not_there_holds_up_nothing(db: Database) -> None:
    report = await read(db, models=[Letter])
    assert "letters" in report.collections[1].fault
    assert report.collections[0].fault == ""
    assert "letters" in page(report)


async def test_maps_follow_a_change_of_the_model(db: Database, dsn: str) -> None:
    await db.vectors.upsert(rows(10))
    await migrations.add_embedding_column("v2", 3, Settings(dsn=dsn))
    await execute(
        dsn,
        "UPDATE qortex_vectors SET v2 = ARRAY[1, substr(id, 2)::int, 2]::vector",
        "UPDATE qortex_db_changeovers SET began_at = began_at - interval '1 hour'",
    )
    await db.vectors.switch_to("v2")
    await migrations.drop_embedding_column("old", Settings(dsn=dsn))
    (found,) = (await read(db)).collections
    assert found.fault == ""
    assert found.map is not None
    assert found.map.shares[0] > 0.9  # of [1, n, 2], and not of three clusters


def test_components_are_those_of_numpy() -> None:
    matrix = np.random.default_rng(1).normal(size=(40, 6)) * [9, 5, 1, 1, 1, 1]
    points, shares = maps.project(matrix, by_angle=False)
    centred = matrix - matrix.mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    assert shares == pytest.approx(tuple(values[:2] / values.sum()), rel=1e-4)
    _, _, axes = np.linalg.svd(centred)
    for place in range(2):
        same = np.corrcoef(points[:, place], centred @ axes[place])[0, 1]
        assert abs(same) == pytest.approx(1)
        assert (points[:, place].min(), points[:, place].max()) == pytest.approx((-1, 1))


@pytest.mark.parametrize(
    ("payloads", "key"),
    [
        ([{"a": "x", "b": "1"}, {"a": "y", "b": "1"}], "a"),
        ([{"a": f"{n}", "b": f"{n // 20}"} for n in range(60)], "b"),
        ([{"a": f"{n % 4}", "b": f"{n % 2}"} for n in range(60)], "a"),
        ([{"a": f"{n}"} for n in range(60)], None),
        ([{"a": "x"}] * 9, None),
        ([{}], None),
    ],
)
def test_the_key_that_colours_parts_rows_evenly_into_few(
    payloads: list[dict[str, str]], key: str | None
) -> None:
    assert maps.most_even(payloads) == key
