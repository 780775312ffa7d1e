"""A source read whole, in parts, and compared with what was put into it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from qortex_db.transfer.source import SparseComponents

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from qortex_db.transfer.source import Position, Source, SourceId, SourceRow


async def read(
    source: Source, size: int, after: Position = None
) -> tuple[list[SourceRow], list[tuple[int, Position]]]:
    """All rows from a position on, and each position with how many rows were before it.

    Positions are sent through JSON, as a checkpoint has them.
    """
    rows: list[SourceRow] = []
    positions: list[tuple[int, Position]] = []
    position = json.loads(json.dumps(after))
    async for page in source.pages(position, size):
        assert not page.rejects
        assert len(page.rows) <= 2 * size
        rows += page.rows
        if page.position is not None:
            assert json.loads(json.dumps(page.position)) == page.position
            positions.append((len(rows), page.position))
        position = page.position
    assert position is None
    return rows, positions


async def read_everywhere(source: Source, sizes: Iterable[int]) -> list[SourceRow]:
    """The rows, which are the same at each size of page and from each of some positions on."""
    first: list[SourceRow] | None = None
    for size in sizes:
        rows, positions = await read(source, size)
        ids = [row.id for row in rows]
        assert len(set(ids)) == len(ids), "each row once"
        first = first or rows
        assert ids == [row.id for row in first], "the same order at every size of page"
        for count, position in [*positions[len(positions) // 3 :][:1], *positions[-1:]]:
            rest, _ = await read(source, 4 * size, position)
            assert [row.id for row in rest] == ids[count:], "exactly the rest"
    assert first is not None
    return first


def plain(vector: Any) -> Any:
    """A vector that can be compared: of float32, or by its components."""
    if vector is None:
        return None
    if isinstance(vector, SparseComponents):
        return {
            int(i): float(np.float32(v)) for i, v in zip(vector.indices, vector.values, strict=True)
        }
    return np.asarray(vector, np.float32)


def assert_row(row: SourceRow, expected: SourceRow, *, near: float = 0) -> None:
    """The same, types and all; vectors within a distance."""
    assert (row.id, type(row.id)) == (expected.id, type(expected.id))
    assert typed(row.payload) == typed(expected.payload), row.id
    assert row.document == expected.document
    given = {name: plain(each) for name, each in row.vectors.items() if each is not None}
    wanted = {name: plain(each) for name, each in expected.vectors.items() if each is not None}
    assert given.keys() == wanted.keys(), row.id
    for name, vector in wanted.items():
        if isinstance(vector, dict):
            assert given[name] == vector
        else:
            np.testing.assert_allclose(given[name], vector, rtol=near, atol=near)


def assert_rows(
    rows: Iterable[SourceRow], expected: Mapping[SourceId, SourceRow], *, near: float = 0
) -> None:
    """All of them, and no other."""
    rows = list(rows)
    assert len(rows) == len(expected)
    for row in rows:
        assert_row(row, expected[row.id], near=near)


def typed(value: Any) -> Any:
    """A payload in which 1, 1.0 and True are three."""
    if isinstance(value, dict):
        return {key: typed(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [typed(each) for each in value]
    return type(value).__name__, value


def unit_vectors(count: int, dimensions: int, seed: int = 7) -> np.ndarray[Any, Any]:
    """Of length 1, in 40 clusters."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(40, dimensions))
    made = centres[random.integers(0, 40, count)] + 0.6 * random.normal(size=(count, dimensions))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def overlap(found: Iterable[SourceId], wanted: Iterable[SourceId]) -> float:
    """How much of what is wanted was found."""
    wanted = set(wanted)
    return len(wanted & set(found)) / len(wanted)


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Each file's bytes and time: what opening for reading must leave alone."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
