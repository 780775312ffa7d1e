"""How values of each type come out of a binary COPY, and what they are called in a manifest.

What is not listed is written as its text, as psql shows it, and goes back by a cast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

WRITTEN: Final = "written"
ARRAY: Final = "array"
"""A vector's text, which is JSON as it is."""
CAST: Final = (WRITTEN, ARRAY)
"""What comes as a text and goes back by a cast."""
VECTORS: Final = {"vector": ">f4", "halfvec": ">f2"}
NUMBERS: Final = {
    "boolean": ">i1",
    "int2": ">i2",
    "int4": ">i4",
    "int8": ">i8",
    "float4": ">f4",
    "float8": ">f8",
}
MOMENTS: Final = {"timestamptz": ">i8", "timestamp": ">i8", "date": ">i4"}
"""Numbers, too: since 2000, in microseconds or days."""
BYTES: Final = ("bytes", "words")
"""bytea, and tsvector as PostgreSQL sends it: nobody else reads it."""
KINDS: Final = frozenset({*VECTORS, *NUMBERS, *MOMENTS, *BYTES, *CAST, "text", "json", "uuid"})
_BY_TYPE: Final = {
    "bool": "boolean",
    "text": "text",
    "varchar": "text",
    "bpchar": "text",
    "name": "text",
    "json": "text",
    "jsonb": "json",
    "uuid": "uuid",
    "bytea": "bytes",
    "tsvector": "words",
    **{name: name for name in (*NUMBERS, *MOMENTS) if name != "boolean"},
}
_DAYS: Final = 10_957  # from 1970 to 2000
_JSONB: Final = b"\x01"  # its version
Field = bytes | None


def kind_of(base: str, *, is_catalogs: bool, is_pgvectors: bool, is_enum: bool) -> str:
    """The kind of a type.

    Args:
        base: Its name, or that of the type that a domain is over.
        is_catalogs: Whether it is one of PostgreSQL's own.
        is_pgvectors: Whether it is one of pgvector's.
        is_enum: Whether it is an enum, which is sent as its label.
    """
    if is_enum:
        return "text"
    if is_pgvectors and base in VECTORS:
        return base
    return _BY_TYPE.get(base, WRITTEN) if is_catalogs else WRITTEN


def missing(fields: Sequence[Field]) -> NDArray[np.bool_]:
    """Which of the fields are NULL."""
    return np.fromiter((field is None for field in fields), bool, len(fields))


def numbers(fields: Sequence[Field], code: str) -> NDArray[np.generic]:
    """Fields of one size as an array; NULLs are 0."""
    nothing = bytes(np.dtype(code).itemsize)
    joined = b"".join(nothing if field is None else field for field in fields)
    return np.frombuffer(joined, code)


def fields_of(values: NDArray[np.generic], code: str, nulls: Sequence[bool]) -> list[Field]:
    """The opposite."""
    size = np.dtype(code).itemsize
    sent = values.astype(code).tobytes()
    return [None if null else sent[at * size : at * size + size] for at, null in enumerate(nulls)]


def since_1970(kind: str, values: NDArray[np.generic]) -> NDArray[np.int64]:
    """Moments as the rest of the world counts them; the infinities stay what they are."""
    return _moved(kind, values, 1)


def since_2000(kind: str, values: NDArray[np.generic]) -> NDArray[np.int64]:
    """The opposite."""
    return _moved(kind, values, -1)


def infinities(kind: str) -> tuple[int, int]:
    """What PostgreSQL has for minus infinity and infinity."""
    info = np.iinfo(np.dtype(MOMENTS[kind]))
    return int(info.min), int(info.max)


def _moved(kind: str, values: NDArray[np.generic], sign: int) -> NDArray[np.int64]:
    whole = values.astype(np.int64)
    step = _DAYS if kind == "date" else _DAYS * 86_400_000_000
    low, high = infinities(kind)
    return np.where((whole == low) | (whole == high), whole, whole + sign * step)


def vector_field(values: NDArray[np.generic], kind: str) -> bytes:
    """The opposite."""
    return len(values).to_bytes(2, "big") + b"\0\0" + values.astype(VECTORS[kind]).tobytes()


def json_text(field: bytes) -> bytes:
    """A jsonb's text."""
    return field[1:]


def json_field(text: bytes) -> bytes:
    """The opposite."""
    return _JSONB + text


def joined(fields: Iterable[bytes]) -> bytes:
    """The components of vectors behind one another, as PostgreSQL sends them."""
    return b"".join(field[4:] for field in fields)


def uuid_text(field: bytes) -> bytes:
    """A UUID as it is written."""
    return str(UUID(bytes=field)).encode()


def uuid_field(text: bytes) -> bytes:
    """The opposite."""
    return UUID(text.decode()).bytes
