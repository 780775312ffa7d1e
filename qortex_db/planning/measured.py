"""The measured figures, and how they are carried on to sizes that were not measured."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qortex_db.planning.sizes import M, Storage, vector_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

_DIMENSIONS: Final = 384
_INLINE: Final = 480
"""Dimensions from which full vectors lie beside their rows (TOAST)."""
_AT: Final = {"full": 40, "half": 40, "binary": 20}
"""The setting at which sizes and dimensions are compared."""


@functools.cache
def figures() -> Any:
    """`measured.json`."""
    return json.loads((files("qortex_db.planning") / "measured.json").read_text())


def measured_rows() -> int:
    """The most rows of 384 dimensions that were searched."""
    return max(int(each["rows"]) for each in _of(figures()["searches"], dimensions=_DIMENSIONS))


@dataclass(frozen=True, slots=True)
class Search:
    """What a search needs.

    Attributes:
        setting: `ef_search`, or `oversampling` of single bits, with its value.
        core_seconds: Of the server's processor.
    """

    setting: str
    value: int
    core_seconds: float


def _of(lines: Sequence[Any], **wanted: Any) -> list[Any]:
    return [each for each in lines if all(each[key] == wanted[key] for key in wanted)]


def _power(at: Sequence[tuple[float, float]], where: float) -> float:
    """By the power law through the first and the last of some measured points; never falling."""
    (first, low), (last, high) = min(at), max(at)
    exponent = max(0.0, math.log(high / low) / math.log(last / first)) if last > first else 0.0
    return float(high * (where / last) ** exponent)


def _needed(lines: Sequence[Any], recall: float) -> float:
    """The setting at which a measured curve reaches a recall, between two measured ones."""
    points = sorted((math.log(each["value"]), each["recall"]) for each in lines)
    before = points[0]
    for value, reached in points:
        if reached >= recall:
            low, share = before[0], 0.0
            if reached > before[1]:
                share = max(0.0, (recall - before[1]) / (reached - before[1]))
            return float(math.exp(low + (value - low) * share))
        before = value, max(before[1], reached)
    # Where no setting reached it: as many times more as the share that is still missed.
    value, reached = points[-1]
    return float(math.exp(value) * (1 - reached) / (1 - recall))


def search(rows: int, dimensions: int, storage: Storage, recall: float) -> Search:
    """By a vector alone, of ten hits."""
    lines = _of(figures()["searches"], storage=storage, m=M)
    growing = _of(lines, dimensions=_DIMENSIONS)
    sizes = sorted({each["rows"] for each in growing})
    value = _power([(n, _needed(_of(growing, rows=n), recall)) for n in sizes], rows)
    value = max(10.0 if storage != "binary" else 2.0, value)
    largest = _of(growing, rows=sizes[-1])
    slope, fixed = np.polyfit(
        [each["value"] for each in largest], [each["core_seconds"] for each in largest], 1
    )
    seconds = max(float(fixed), 1e-4) + max(float(slope), 0.0) * value
    at = [(n, _cost(_of(growing, rows=n), storage)) for n in sizes]
    seconds *= _power(at, rows) / at[-1][1] * _by_dimensions(lines, dimensions, storage)
    name = largest[0]["setting"]
    return Search(name, math.ceil(value), seconds)


def _cost(lines: Sequence[Any], storage: Storage) -> float:
    return float(_of(lines, value=_AT[storage])[0]["core_seconds"])


def _by_dimensions(lines: Sequence[Any], dimensions: int, storage: Storage) -> float:
    """How much more a search takes than of 384 dimensions; none is measured with fewer."""
    least = min(each["rows"] for each in lines)
    at = [(_DIMENSIONS, _cost(_of(lines, rows=least, dimensions=_DIMENSIONS), storage))]
    others = {each["dimensions"] for each in lines} - {_DIMENSIONS}
    at += [(d, _cost(_of(lines, dimensions=d), storage)) for d in sorted(others)]
    slope, fixed = np.polyfit([d for d, _ in at], [cost for _, cost in at], 1)
    return float(max(0.5, (fixed + max(slope, 0.0) * dimensions) / at[0][1]))


def exact_seconds(rows: int, dimensions: int) -> float:
    """A search that compares with every row; of long vectors each is fetched from beside it."""
    lines = _of(figures()["searches"], storage="none")
    per_row = {each["dimensions"]: each["core_seconds"] / each["rows"] for each in lines}
    inline = vector_bytes(dimensions, "full") < vector_bytes(_INLINE, "full")
    if inline:
        return float(rows * per_row[_DIMENSIONS] * max(dimensions, 64) / _DIMENSIONS)
    long = sorted((d, seconds) for d, seconds in per_row.items() if d >= _INLINE)
    slope, fixed = np.polyfit([d for d, _ in long], [seconds for _, seconds in long], 1)
    return float(rows * max(long[0][1], fixed + slope * dimensions))


def by_partitions(count: int) -> float:
    """How many times longer a search takes of so many partitions."""
    measured = [(each["count"], each["ratio"]) for each in figures()["partitions"]]
    return _power([(1, 1.0), *measured], count)


def build_core_seconds(rows: int, dimensions: int, storage: Storage) -> float:
    """Building an HNSW index within its memory, of one process's processor."""
    lines = _of(figures()["builds"], storage=storage, m=M)
    whole = [each for each in lines if each["fitted"] >= each["rows"]]
    growing = _of(whole, dimensions=_DIMENSIONS)
    per_row = _power([(e["rows"], e["core_seconds"] / e["rows"]) for e in growing], rows)
    # Of other dimensions there is one size, beside the same of 384.
    at = [(_DIMENSIONS, 1.0)]
    for each in whole:
        if each["dimensions"] != _DIMENSIONS:
            beside = next(one for one in growing if one["rows"] == each["rows"])
            at.append((each["dimensions"], each["core_seconds"] / beside["core_seconds"]))
    if len(at) > 1:
        slope, fixed = np.polyfit([d for d, _ in at], [ratio for _, ratio in at], 1)
        per_row *= max(0.5, float(fixed + max(slope, 0.0) * dimensions))
    return rows * per_row


def without_memory() -> float:
    """How many times longer a build takes of which a part did not fit into its memory."""
    lines = figures()["builds"]
    tight = [each for each in lines if each["fitted"] < each["rows"]]
    ratios = []
    for each in tight:
        same = {key: each[key] for key in ("rows", "dimensions", "storage", "m")}
        whole = next(one for one in _of(lines, **same) if one["fitted"] >= one["rows"])
        share = 1 - each["fitted"] / each["rows"]
        ratios.append(1 + (each["core_seconds"] / whole["core_seconds"] - 1) / share)
    return max(1.0, sum(ratios) / len(ratios)) if ratios else 1.0


def graph_bytes(rows: int, dimensions: int, storage: Storage) -> int:
    """What `maintenance_work_mem` has to be for a build that fits."""
    tight = [each for each in figures()["builds"] if each["fitted"] < each["rows"]]
    beside = [
        each["memory_bytes"] / each["fitted"] - vector_bytes(each["dimensions"], each["storage"])
        for each in tight
    ]
    return int(rows * (vector_bytes(dimensions, storage) + max(beside, default=0.0)))
