"""Half and sparse vectors, in and out, on the package's engine and on a host's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, MetaData, Table, Text, bindparam, cast, insert, select
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import (
    Database,
    DimensionMismatchError,
    Embedding,
    HalfEmbedding,
    InvalidInputError,
    SparseEmbedding,
)
from qortex_db.types import SparseVector, as_float32, from_binary
from support.catalogue import execute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

ITEMS = Table(
    "items",
    MetaData(),
    Column("id", Text, primary_key=True),
    Column("vec", Embedding(4)),
    Column("half", HalfEmbedding(4)),
    Column("sparse", SparseEmbedding(100)),
)
# Each is another float16 than its neighbours, and none is exact in decimals.
NUMBERS = [0.1, -1e-7, 65_504.0, 1 / 3]
FLOATS = [0.1, -1.17549435e-38, 3.4028235e38, 1 / 3]


@pytest.fixture
async def plain(empty_dsn: str) -> AsyncIterator[AsyncEngine]:
    """A host's engine that knows nothing of us."""
    await execute(empty_dsn, "CREATE EXTENSION vector")
    host = create_async_engine(empty_dsn.replace("postgresql://", "postgresql+asyncpg://"))
    async with host.begin() as connection:
        await connection.run_sync(ITEMS.metadata.create_all)
    yield host
    await host.dispose()


@pytest.fixture(params=["ours", "host"])
async def engine(
    request: pytest.FixtureRequest, plain: AsyncEngine, empty_dsn: str
) -> AsyncIterator[AsyncEngine]:
    """The package's engine, and a host's that it adopted."""
    make = Database.connect(empty_dsn) if request.param == "ours" else Database.from_engine(plain)
    async with make as database:
        yield database.engine if request.param == "ours" else plain


async def both_ways(engine: AsyncEngine, column: str, value: object) -> Any:
    """What comes back of a row: by INSERT RETURNING and by SELECT, which agree."""
    field = ITEMS.c[column]
    async with engine.begin() as connection:
        row = insert(ITEMS).values(id="a", **{column: value}).returning(field)
        returned = (await connection.execute(row)).scalar_one()
        inner = select(ITEMS).subquery()
        found = (await connection.execute(select(inner.c[column]))).scalar_one()
    np.testing.assert_equal(as_plain(returned), as_plain(found))
    return found


def as_plain(value: Any) -> Any:
    return value.to_list() if isinstance(value, SparseVector) else value


async def test_a_half_vector_comes_back_as_float32_rounded_once(engine: AsyncEngine) -> None:
    found = await both_ways(engine, "half", NUMBERS)
    assert found.dtype == np.float32
    assert found.tolist() == np.float16(NUMBERS).astype(np.float32).tolist()


@pytest.mark.parametrize("column", ["vec", "half", "sparse"])
async def test_nothing_stays_nothing(engine: AsyncEngine, column: str) -> None:
    assert await both_ways(engine, column, None) is None


def test_a_half_vector_is_sent_in_binary() -> None:
    process = HalfEmbedding(4).bind_processor(asyncpg.dialect())
    assert from_binary(process(NUMBERS)).tolist() == as_float32(NUMBERS).tolist()  # type: ignore[union-attr]
    statement = str(
        select(ITEMS.c.half).where(ITEMS.c.half == NUMBERS).compile(dialect=asyncpg.dialect())
    )
    assert "= CAST(CAST($1 AS vector) AS halfvec)" in statement


async def test_a_sparse_vector_comes_back_as_it_was_even_without_a_codec(
    plain: AsyncEngine,
) -> None:
    given = SparseVector({99: float(np.float32(1 / 3)), 0: -1e-30, 5: 0.1}, 100)
    found = await both_ways(plain, "sparse", given)
    assert found.indices() == [0, 5, 99]
    assert np.float32(found.values()).tolist() == np.float32(given.values()).tolist()


async def test_a_sparse_vector_may_be_a_mapping_without_its_zeros(engine: AsyncEngine) -> None:
    found = await both_ways(engine, "sparse", {7: np.float32(2), 3: 0, np.int64(1): -1})
    assert (found.indices(), found.values(), found.dimensions()) == ([1, 7], [-1.0, 2.0], 100)
    empty = SparseEmbedding(100).bind_processor(asyncpg.dialect())({})
    assert empty == "{}/100"


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        (HalfEmbedding(2), [1e5, 0], "65,504"),
        (HalfEmbedding(2), [float("nan"), 0], "NaN"),
        (HalfEmbedding(2), [float("inf"), 0], "infinity"),
        (HalfEmbedding(2), "[1,2]", "pass a list"),
        (HalfEmbedding(3), [1, 2], "column holds 3"),
        (SparseEmbedding(9), [1, 2], "SparseVector"),
        (SparseEmbedding(9), {9: 1}, "from 0 to 8"),
        (SparseEmbedding(9), {-1: 1}, "from 0 to 8"),
        (SparseEmbedding(9), {True: 1}, "from 0 to 8"),
        (SparseEmbedding(9), {1.5: 1}, "from 0 to 8"),
        (SparseEmbedding(9), {1: "x"}, "type str"),
        (SparseEmbedding(9), {1: float("nan")}, "NaN or infinity"),
        (SparseEmbedding(9), {1: 1e39}, "NaN or infinity"),
        (SparseEmbedding(), {1: 1}, "declares no dimensions"),
        (SparseEmbedding(9), SparseVector({1: 1}, 8), "has 8 dimensions"),
        (SparseEmbedding(20_000), dict.fromkeys(range(16_001), 1), "16,001 non-zero"),
    ],
)
def test_a_value_that_no_column_takes_is_refused(kind: Any, value: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        kind.bind_processor(asyncpg.dialect())(value)


def test_a_mismatch_says_both_dimensions() -> None:
    with pytest.raises(DimensionMismatchError) as caught:
        SparseEmbedding(9).bind_processor(asyncpg.dialect())(SparseVector({1: 1}, 8))
    assert (caught.value.expected, caught.value.actual) == (9, 8)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Embedding(4), FLOATS),
        (HalfEmbedding(4), NUMBERS),
        (SparseEmbedding(4), dict(enumerate(FLOATS))),
    ],
    ids=repr,
)
async def test_a_literal_of_the_statement_is_exactly_its_parameter(
    engine: AsyncEngine, kind: Any, value: Any
) -> None:
    async with engine.connect() as connection:
        found = [
            (
                await connection.execute(
                    select(cast(bindparam("x", value, kind, literal_execute=literal), kind))
                )
            )
            for literal in (True, False)
        ]
        literal, sent = (as_plain(result.scalar_one()) for result in found)
    given = list(value.values()) if isinstance(value, dict) else value
    half = isinstance(kind, HalfEmbedding)
    exact = np.float16(given).astype(np.float32) if half else np.float32(given)
    assert np.float32(literal).tolist() == np.float32(sent).tolist() == exact.tolist()


async def test_each_metric_of_each_type_is_what_numpy_says(engine: AsyncEngine) -> None:
    one, two = np.float32([1, 2, 3, 4]), np.float32([4, 1, -2, 0.5])
    sparse = SparseVector(dict(enumerate(one.tolist())), 100)
    row = {"id": "a", "vec": one, "half": one, "sparse": sparse}
    expected = [
        1 - one @ two / np.linalg.norm(one) / np.linalg.norm(two),
        np.linalg.norm(one - two),
        -(one @ two),
        np.abs(one - two).sum(),
    ]
    async with engine.begin() as connection:
        await connection.execute(insert(ITEMS).values(row))
        for name in ("vec", "half", "sparse"):
            column: Any = ITEMS.c[name]
            other = dict(enumerate(two.tolist())) if name == "sparse" else two
            found = await connection.execute(
                select(
                    column.cosine_distance(other),
                    column.l2_distance(other),
                    column.max_inner_product(other),
                    column.l1_distance(other),
                )
            )
            np.testing.assert_allclose(found.one(), expected, rtol=1e-5)


def test_a_type_is_written_as_it_is_imported() -> None:
    kinds = [Embedding(3), HalfEmbedding(), SparseEmbedding(9, max_nonzeros=5)]
    written = [f"{type(kind).__module__}.{kind!r}" for kind in kinds]
    assert written == [
        "qortex_db.types.Embedding(3)",
        "qortex_db.types.HalfEmbedding()",
        "qortex_db.types.SparseEmbedding(9)",
    ]
