"""Bytes on disk, by how PostgreSQL and pgvector lay rows out in pages."""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias

Storage: TypeAlias = Literal["full", "half", "binary"]

SIZE_TOLERANCE: Final = 0.05
"""How far a predicted size may be from a real one's, as a share of it."""
M: Final = 16
"""The links of a row in an HNSW graph, as they are by default."""

_PAGE: Final = 8_192
_HEAP: Final = _PAGE - 24  # of a page's header
_HNSW: Final = _PAGE - 24 - 8  # and pgvector's own mark at the end
_POINTER: Final = 4  # to an item of a page
_ELEMENT: Final = 72  # before a vector: its level, ten places of rows, that of its links
_LINK: Final = 6
_TOASTED: Final = 2_032  # above that a row's largest column is kept elsewhere
_CHUNK: Final = 1_996
_OF_CHUNK: Final = 36
_IN_ITS_PLACE: Final = 18
_ROW: Final = 24 + 16 + 5  # header, two times, an empty payload
_FILLED: Final = 0.9  # of a page of a B-tree that was filled in order


def _aligned(size: float) -> int:
    return math.ceil(size / 8) * 8


def vector_bytes(dimensions: int, storage: Storage) -> int:
    """A value of pgvector's, or of bits, with its header."""
    body = {"full": 4 * dimensions, "half": 2 * dimensions, "binary": math.ceil(dimensions / 8)}
    return 8 + body[storage]


def table_bytes(
    rows: int,
    dimensions: int,
    *,
    storage: Storage = "full",
    id_bytes: int = 36,
    payload_bytes: int = 0,
    document_bytes: int = 0,
) -> int:
    """A table of the default's form, with what is kept beside it and without its indexes.

    Args:
        storage: Of the column: full or half.
        payload_bytes: As JSON; an empty one is counted already.
        document_bytes: As UTF-8; nothing is taken off for compression.
    """
    vector = vector_bytes(dimensions, storage)
    others = _ROW + 1 + id_bytes + payload_bytes + document_bytes
    elsewhere = 0.0
    if others + vector > _TOASTED:
        elsewhere = _chunked(vector - 4)
        vector = _IN_ITS_PLACE
    row = _aligned(others + vector + 4) + _POINTER
    a_page = _HEAP // row
    return int(rows * ((_PAGE / a_page if a_page else row) + elsewhere))


def _chunked(size: int) -> float:
    """A value in TOAST: its chunks are put into pages one after another."""
    chunks = [_CHUNK] * (size // _CHUNK) + [rest for rest in [size % _CHUNK] if rest]
    values, pages, left = 64, 0, 0
    for chunk in chunks * values:
        item = _aligned(_OF_CHUNK + chunk) + _POINTER
        if item > left:
            pages, left = pages + 1, _HEAP
        left -= item
    return pages * _PAGE / values + len(chunks) * (16 + _POINTER) / _FILLED


def key_bytes(rows: int, id_bytes: int = 36) -> int:
    """The index of the primary key, filled in order."""
    return int(rows * (_aligned(8 + 1 + id_bytes) + _POINTER) / _FILLED)


def index_bytes(rows: int, dimensions: int, storage: Storage = "full", m: int = M) -> int:
    """An HNSW index, built over rows that are there."""
    element = _aligned(_ELEMENT + vector_bytes(dimensions, storage))
    links = _aligned(4 + 2 * m * _LINK)
    both = element + links + 2 * _POINTER
    if both > _HNSW:  # the links have a page of their own
        return rows * 2 * _PAGE
    a_page = _HNSW // both
    # One of m rows is in a layer above, one of m of these in the next; where a page has no room
    # left for their links, a row less is on it.
    bears = (_HNSW - a_page * both) // (m * _LINK)
    mean = a_page / (m - 1)
    within = sum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(bears + 1))
    return int(rows * _PAGE / max(1.0, a_page - (1 - within)))


def lists_bytes(rows: int, dimensions: int, storage: Storage = "full") -> int:
    """An IVFFlat index."""
    item = 8 + _aligned(vector_bytes(dimensions, storage)) + _POINTER
    return int(rows * _PAGE / max(1, _HNSW // item))
