"""Data frames in and out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from qortex_db import Database, InvalidInputError, SearchHits
from qortex_db.testing import factories

N = 2_500
VECTORS = np.random.default_rng(5).normal(size=(N, 384)).astype("f4")
TEXTS = [f"text {i}" if i % 3 else None for i in range(N)]
YEARS = [1_900 + i % 100 if i % 5 else None for i in range(N)]


def as_pandas() -> pd.DataFrame:
    frame = pd.DataFrame({"emb": list(VECTORS), "text": TEXTS, "year": YEARS})
    frame["kind"] = pd.Categorical(["a", "b"] * (N // 2))
    return frame.set_index(pd.Index([f"r{i:04}" for i in range(N)], name="key"))


def as_arrow() -> pa.Table:
    return pa.table(
        {
            "key": [f"r{i:04}" for i in range(N)],
            "emb": pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.ravel()), 384),
            "text": TEXTS,
            "year": YEARS,
            "kind": ["a", "b"] * (N // 2),
        }
    )


@pytest.mark.parametrize("make", [as_pandas, as_arrow, lambda: pl.DataFrame(as_arrow())])
async def test_frames_are_ingested_as_records_are(make: Any, dsn384: str) -> None:
    async with Database.connect(dsn384) as db:
        columns = {"id": "key", "embedding": "emb", "document": "text"}
        assert await db.vectors.ingest(make(), batch_size=1_000, **columns) == N
        found = [record async for record in db.vectors.stream()]
        assert [record.id for record in found] == [f"r{i:04}" for i in range(N)]
        assert np.array_equal([record.embedding for record in found], VECTORS)
        assert [record.document for record in found] == TEXTS
        assert found[0].payload == {"kind": "a"}
        assert found[1].payload == {"kind": "b", "year": 1_901}
        async with db.unit_of_work() as uow:  # nothing changes
            assert await uow.vectors.ingest(make(), **columns) == N

        hits = await db.vectors.search(VECTORS[7], limit=20, exact=True, with_embedding=True)
        frame = hits.to_pandas()
        assert list(frame.columns)[:4] == ["id", "score", "document", "embedding"]
        assert set(frame.columns[4:]) == {"kind", "year"}
        assert list(frame["id"]) == [hit.id for hit in hits]
        assert frame["score"].tolist() == [hit.score for hit in hits]
        table = hits.to_arrow()
        assert pl.DataFrame(table)["id"].to_list() == list(frame["id"])
        assert np.array_equal(table["embedding"][0].as_py(), VECTORS[7])
        assert table["embedding"].type == pa.list_(pa.float32())
        page = await db.vectors.scroll(limit=3)
        assert page.to_arrow()["id"].to_pylist() == ["r0000", "r0001", "r0002"]
        assert list(page.to_pandas().columns) == ["id", "document", "kind", "year"]


async def test_what_is_no_column_is_refused_by_its_name(db: Database) -> None:
    frame = pd.DataFrame({"id": ["a"], "emb": [[1.0] * 8]})
    with pytest.raises(InvalidInputError, match=r"no column 'embedding'; its .* 'id', 'emb'"):
        await db.vectors.ingest(frame, embedding="embedding")
    with pytest.raises(InvalidInputError, match="name columns of a data frame"):
        await db.vectors.ingest([], embedding="emb")
    uneven = pd.DataFrame({"id": ["a", "b"], "emb": [[1.0] * 8, [1.0] * 7]})
    with pytest.raises(InvalidInputError, match="row 1"):
        await db.vectors.ingest(uneven, embedding="emb")
    lacking = pd.DataFrame({"id": ["a", "b"], "emb": [[1.0] * 8, [*[1.0] * 7, None]]})
    with pytest.raises(InvalidInputError, match=r"row 1.*None"):
        await db.vectors.ingest(lacking, embedding="emb")
    assert await db.vectors.ingest(frame, embedding="emb") == 1
    unnamed = pd.DataFrame({"id": ["b", "c"], "emb": [[1.0] * 8] * 2}, index=["x", "y"])
    assert await db.vectors.ingest(unnamed, embedding="emb") == 2
    assert (await db.vectors.get(["c"]))["c"].payload == {}
    assert await db.vectors.ingest(pd.DataFrame({"id": [], "emb": []}), embedding="emb") == 0


def test_hits_are_shown_as_a_table_and_keys_of_several_types_are_named() -> None:
    odd = {"id": "mine", "n": 1, "<b>": "<script>"}
    made = [
        factories.SearchHitFactory.build(id="a", score=0.5, payload=odd, document="x" * 300),
        factories.SearchHitFactory.build(id="b", score=0.25, payload={"n": "text"}, document=None),
    ]
    found: SearchHits[str] = SearchHits(made, requested=2, complete=True)
    shown = found._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
    assert "x" * 200 + "…" in shown
    assert "0.5000" in shown
    frame = found.to_pandas()
    assert frame["payload.id"].isna().tolist() == [False, True]
    with pytest.raises(InvalidInputError, match="'n' are of several types"):
        found.to_arrow()
    many: SearchHits[str] = SearchHits(made * 40, requested=80, complete=True)
    assert "and 30 more" in many._repr_html_()
    assert many._repr_html_().count("<tr>") == 51
    empty: SearchHits[str] = SearchHits([], requested=2, complete=True)
    assert list(empty.to_pandas().columns) == ["id"]
    assert empty._repr_html_().startswith("<table>")
