"""Arrays and tensors of other libraries, by the protocols that they have.

The classes here have what torch, jax and the array API standard have, and no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped

from qortex_db import (
    Collection,
    Database,
    InvalidInputError,
    SearchHits,
    SparseEmbedding,
    VectorMixin,
    VectorRecord,
    VectorSpec,
    vector_column,
)
from qortex_db.testing.factories import SearchHitFactory, embedding
from qortex_db.types import SparseVector, as_float32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GRADIENT = "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."


class Scalar:
    """A tensor of one number, such as is in a list of them."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return float(self.value)

    def __index__(self) -> int:
        if isinstance(self.value, float):
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self.value)


class Tensor:
    """As torch's, on the CPU."""

    def __init__(self, values: Any, *, requires_grad: bool = False) -> None:
        self.values = np.asarray(values)
        self.requires_grad = requires_grad

    def __array__(self, dtype: Any = None) -> Any:
        if self.requires_grad:
            raise RuntimeError(GRADIENT)
        return self.values if dtype is None else self.values.astype(dtype)

    def __len__(self) -> int:
        if not self.values.ndim:
            raise TypeError("len() of a 0-d tensor")
        return len(self.values)

    def __iter__(self) -> Iterator[Tensor]:
        for row in self.values:
            yield Tensor(row, requires_grad=self.requires_grad)

    def __float__(self) -> float:
        if self.values.size != 1:
            raise RuntimeError("a Tensor with several elements cannot be converted to Scalar")
        return float(self.values)

    def __bool__(self) -> bool:
        raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous")


class Exchanged:
    """As of the array API: what it has is DLPack."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.values.__dlpack_device__()


class Elsewhere(Exchanged):
    """Memory that is not the CPU's."""

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("not the CPU's")


VALUES = embedding(0, 8)
TAKEN: dict[str, Callable[[], Any]] = {
    "a tensor": lambda: Tensor(VALUES),
    "a tensor of float64": lambda: Tensor(VALUES.astype(np.float64)),
    "an array of another library": lambda: Exchanged(VALUES),
    "a list of tensors of one number": lambda: [Tensor(value) for value in VALUES],
    "a tuple of scalars": lambda: tuple(Scalar(float(value)) for value in VALUES),
}
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a tensor with gradients": (
        lambda: Tensor(VALUES, requires_grad=True),
        r"is a Tensor that can't be read as an array \(RuntimeError: Can't call numpy.*detach",
    ),
    "memory of another device": (
        lambda: Elsewhere(VALUES),
        r"is a Elsewhere that can't be read as an array \(BufferError",
    ),
    "a tensor of bools": (lambda: Tensor([True] * 8), "has elements of type bool"),
    "a list of rows": (lambda: [Tensor([1.0, 2.0])] * 8, "embedding.* dimensions"),
    "a matrix": (lambda: Tensor(np.ones((2, 4))), r"2 dimensions \(shape \(2, 4\)\)"),
    "the class itself": (lambda: Tensor, "is a type; pass"),
}


@pytest.mark.parametrize("name", TAKEN)
async def test_tensors_of_the_cpu_are_taken_by_every_method(db: Database, name: str) -> None:
    make = TAKEN[name]
    rows = [VectorRecord("a", make()), VectorRecord("b", embedding(1, 8))]
    assert await db.vectors.upsert(rows) == 2
    assert await db.vectors.upsert([VectorRecord(f"x{n}", make()) for n in range(300)]) == 300
    assert await db.vectors.update("a", embedding=make())
    np.testing.assert_array_equal((await db.vectors.get(["a"]))["a"].embedding, VALUES)
    assert (await db.vectors.search(make()))[0].score == pytest.approx(1.0)
    assert (await db.vectors.recommend([make()]))[0].score == pytest.approx(1.0)
    assert (await db.vectors.multi_search([make(), make()]))[0].score == pytest.approx(1.0)
    embedded = await db.embeddings.embed(["t"], model=lambda _: [make()], name="m")
    np.testing.assert_array_equal(embedded[0], VALUES)


async def test_a_matrix_of_tensors_is_several_embeddings(db: Database) -> None:
    await db.vectors.upsert([VectorRecord("a", VALUES)])
    both = Tensor(np.stack([VALUES, VALUES]))
    assert len(await db.vectors.search_many(both)) == 2  # type: ignore[arg-type]
    assert await db.embeddings.embed(["t", "u"], model=lambda _: both, name="m") is not None


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cant_be_read_is_refused_by_row_and_id_with_its_cause(
    db: Database, name: str
) -> None:
    make, message = REFUSED[name]
    with pytest.raises(InvalidInputError, match=message):
        as_float32(make())
    rows = [VectorRecord(f"v{n:03}", embedding(n, 8)) for n in range(400)]
    rows[333] = VectorRecord("bad", make())
    for one in (db.vectors.upsert(rows), db.vectors.ingest(rows)):
        with pytest.raises(InvalidInputError, match=r"row 333 \(id 'bad'\)"):
            await one
    assert await db.vectors.count() == 0
    async with db.unit_of_work() as uow:
        with pytest.raises(InvalidInputError, match=r"row 333 \(id 'bad'\)"):
            await uow.vectors.upsert(rows)
    for call in (db.vectors.search(make()), db.vectors.recommend([make()])):
        with pytest.raises(InvalidInputError):
            await call
    with pytest.raises(InvalidInputError):
        await db.embeddings.embed(["t"], model=lambda _: [make()], name="m")


def test_the_cause_of_a_refusal_is_kept() -> None:
    with pytest.raises(InvalidInputError) as caught:
        as_float32(Tensor(VALUES, requires_grad=True))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_sparse_mappings_have_numbers_of_any_library() -> None:
    column = SparseEmbedding(10)
    mapping = {np.int64(3): np.float32(0.5), np.uint8(1): Scalar(2.0), Scalar(7): Tensor(1.5)}
    assert column.to_text(mapping) == "{2:2.0,4:0.5,8:1.5}/10"
    assert column.to_text(SparseVector({3: 0.5}, 10)) == "{4:0.5}/10"
    for bad in (
        {3: Tensor([1.0, 2.0])},
        {3: np.True_},
        {3: b"1"},
        {3: "1"},
        {np.float64(3): 1.0},
        {Scalar(3.5): 1.0},
    ):
        with pytest.raises(InvalidInputError):
            column.to_text(bad)


class Base(DeclarativeBase):
    pass


class Pictures(VectorMixin, Base):
    __tablename__ = "pictures"
    __collection__ = Collection(VectorSpec(8))

    thumb: Mapped[Any | None] = vector_column(VectorSpec(8))
    words: Mapped[Any | None] = vector_column(VectorSpec(10, storage="sparse"))


async def test_further_vectors_are_read_the_same_way(db: Database) -> None:
    async with db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    pictures = db.collection(Pictures)
    given = {"thumb": Tensor(VALUES), "words": {np.int64(3): np.float16(0.5)}}
    await pictures.upsert([VectorRecord("a", Exchanged(VALUES), vectors=given)])  # type: ignore[arg-type]
    read = (await pictures.get(["a"]))["a"].vectors
    assert read is not None
    np.testing.assert_array_equal(read["thumb"], VALUES)
    assert read["words"].to_list() == SparseVector({3: 0.5}, 10).to_list()
    bad = {"thumb": Tensor(VALUES, requires_grad=True)}
    with pytest.raises(InvalidInputError, match=r"vectors\['thumb'\] of row 0"):
        await pictures.upsert([VectorRecord("a", VALUES, vectors=bad)])
    hits = await pictures.hybrid_search(None, sparse={np.int16(3): Scalar(1.0)})  # type: ignore[dict-item]
    assert hits[0].id == "a"


SCORES: dict[str, tuple[Any, bool]] = {
    "a list": ([0.1, 0.2], True),
    "a tensor": (Tensor([0.1, 0.2]), True),
    "a list of tensors": ([Tensor(0.1), Tensor(0.2)], True),
    "a tensor with gradients": (Tensor([0.1, 0.2], requires_grad=True), False),
    "a generator": ((score for score in (0.1, 0.2)), False),
    "texts": (["0.1", "0.2"], False),
    "bytes": ([b"1", b"2"], False),
    "bytes alone": (b"12", False),
    "bools": ([True, False], False),
    "too few": ([0.1], False),
    "NaN": ([0.1, float("nan")], False),
    "nothing": (None, False),
}


@pytest.mark.parametrize("name", SCORES)
async def test_a_scorer_may_give_any_librarys_numbers(name: str) -> None:
    given, taken = SCORES[name]
    hits = SearchHits(SearchHitFactory.build_batch(2), requested=2, complete=True)
    if taken:
        assert [hit.id for hit in await hits.rerank("q", lambda *_: given)] == ["v00001", "v00000"]
    else:
        with pytest.raises(InvalidInputError, match="scorer"):
            await hits.rerank("q", lambda *_: given)
