"""Records in key order, checked and encoded part by part while the parts before are on their way.

A part is looked at as a whole first, by a few passes over one matrix: about 2 µs a row from numpy
and 5 µs from lists. Only what those can't vouch for is checked row by row, where a refusal gets
its name.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qortex_db import types
from qortex_db.errors import InvalidInputError
from qortex_db.repositories import validation
from qortex_db.repositories.vectors.records import RecordInput, VectorRecord
from qortex_db.repositories.vectors.written_columns import MISSING, named_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from qortex_db.repositories.vectors.key_statements import GivenColumns
    from qortex_db.repositories.vectors.written_columns import RecordPart, WrittenColumn

PART_BYTES: Final = 2**16
"""The vectors of one statement: several fit into a socket's buffer, so that the next are made
while the server works on those before."""
PART_ROWS: Final = 1_000

_FIELDS: Final = frozenset({"id", "embedding", "payload", "document", "vectors", "attributes"})
_PLAIN: Final = {np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)}


@dataclass(frozen=True, slots=True)
class Part:
    """Checked rows, column by column.

    Attributes:
        values: Of the columns that the batch gives, in their order.
        given: For each of these the ids that give it; None where all do.
    """

    ids: list[str]
    embeddings: list[bytes]
    values: list[list[Any]]
    given: list[dict[str, int] | None]


class Batch:
    """Records in key order, the last of a repeated id; their shape and ids are checked at once.

    Attributes:
        ids: Distinct, in key order.
        given: The columns given, and whether by all records or by some.

    Args:
        written: The columns that the table has beside id and vector.
    """

    def __init__(
        self,
        records: Iterable[RecordInput],
        dimensions: int | None,
        written: Mapping[str, WrittenColumn],
        *,
        allow_zero: bool = False,
        is_half: bool = False,
        first_row: int = 0,
    ) -> None:
        ids, embeddings, further = _columns(records, written, first_row)
        if not validation.all_plain(ids):
            for number, key in enumerate(ids, first_row):
                validation.check_id(key, name=f"id of row {number}")
        last = dict(zip(ids, itertools.count()))
        self.ids = sorted(last)
        self._order = [last[key] for key in self.ids]
        self._embeddings = [embeddings[i] for i in self._order]
        self._columns = [
            (written[name], [values[i] for i in self._order])
            for name, values in sorted(further.items())
        ]
        self.given: GivenColumns = tuple(
            (one.column.name, "some" if any(value is MISSING for value in values) else "all")
            for one, values in self._columns
        )
        self._dimensions = dimensions
        self._allow_zero = allow_zero
        self._is_half = is_half
        self._first_row = first_row
        bytes_a_row = 4 * (dimensions or _length(self._embeddings))
        self._size = max(1, min(PART_ROWS, PART_BYTES // bytes_a_row))

    @property
    def is_one_part(self) -> bool:
        """Whether one statement takes it all."""
        return len(self.ids) <= self._size

    def parts(self) -> Iterator[Part]:
        """The rows by the statement.

        Raises:
            InvalidInputError: A row was refused, named by its number and id.
        """
        for start in range(0, len(self.ids), self._size):
            part = slice(start, start + self._size)
            rows = [self._first_row + i for i in self._order[part]]
            matrix = self._plain_matrix(self._embeddings[part])
            embeddings = self._checked(part, rows) if matrix is None else types.encode_many(matrix)
            columns = [self._values(one, values[part], part, rows) for one, values in self._columns]
            given = [
                None if mode == "all" else self._given(values[part], part)
                for (_, mode), (_, values) in zip(self.given, self._columns, strict=True)
            ]
            yield Part(self.ids[part], embeddings, columns, given)

    def _values(
        self, written: WrittenColumn, values: list[Any], part: slice, rows: list[int]
    ) -> list[Any]:
        name = written.column.name
        what = f"{written.part}[{name!r}]" if written.part in ("vectors", "attributes") else name
        if written.make is not None:  # what the model makes is sent as any value is
            values = [written.make() if value is MISSING else value for value in values]
        return [
            None if value is MISSING else written.check(value, f"{what} of {_row_name(row, key)}")
            for value, row, key in zip(values, rows, self.ids[part], strict=True)
        ]

    def _given(self, values: list[Any], part: slice) -> dict[str, int]:
        pairs = zip(self.ids[part], values, strict=True)
        return {key: 1 for key, value in pairs if value is not MISSING}

    def _plain_matrix(self, embeddings: list[Any]) -> NDArray[np.float32] | None:
        """Arrays or lists of one length, finite and not zero; None where in doubt."""
        kinds = set(map(type, embeddings))
        arrays = kinds == {np.ndarray} and all(row.ndim == 1 for row in embeddings)
        if not (arrays or kinds <= {list, tuple}):
            return None
        lengths = set(map(len, embeddings))
        dimensions = lengths.pop()
        if lengths or not 0 < dimensions <= types.MAX_DIMENSIONS:
            return None
        if dimensions != (self._dimensions or dimensions):
            return None
        with np.errstate(all="ignore"):  # what overflows is a doubt
            if not arrays:
                matrix = types.from_lists(embeddings, dimensions)
            elif {row.dtype for row in embeddings} <= _PLAIN:
                flat = np.concatenate(embeddings).astype(np.float32, copy=False)
                matrix = flat.reshape(-1, dimensions)
            else:
                matrix = None
            if matrix is None:
                return None
            squares = np.einsum("ij,ij->i", matrix, matrix)
            if self._is_half and np.abs(matrix).max() > types.MAX_HALF:
                return None
        return matrix if np.isfinite(squares).all() and squares.all() else None

    def _checked(self, part: slice, rows: list[int]) -> list[bytes]:
        """One by one, since a column that declares no dimension holds any."""
        encoded = []
        for key, embedding, row in zip(self.ids[part], self._embeddings[part], rows, strict=True):
            name = f"embedding of {_row_name(row, key)}"
            vector = types.as_float32(embedding, name=name)
            types.check_dimensions(vector, self._dimensions, name=name)
            types.check_values(vector, name=name, allow_zero=self._allow_zero)
            if self._is_half:
                types.check_half(vector, name=name)
            if vector.size > types.MAX_DIMENSIONS:
                raise InvalidInputError(
                    f"{name} has {vector.size} dimensions; at most {types.MAX_DIMENSIONS:,} fit."
                )
            encoded.append(types.encode(vector))
        return encoded


def _columns(
    records: Iterable[RecordInput], written: Mapping[str, WrittenColumn], first_row: int
) -> tuple[list[Any], list[Any], dict[str, list[Any]]]:
    # No object a row: each would have the collector look through the caller's lists of floats.
    ids: list[Any] = []
    embeddings: list[Any] = []
    payloads: list[Any] = []
    documents: list[Any] = []
    named: list[tuple[int, RecordPart, Any]] = []
    for number, item in enumerate(records, first_row):
        if isinstance(item, VectorRecord):
            ids.append(item.id)
            embeddings.append(item.embedding)
            payloads.append(item.payload)
            documents.append(item.document)
            vectors, attributes = item.vectors, item.attributes
        else:
            _check_mapping(item, f"row {number}")
            ids.append(item["id"])
            embeddings.append(item["embedding"])
            payloads.append(item.get("payload"))
            documents.append(item.get("document"))
            vectors, attributes = item.get("vectors"), item.get("attributes")
        if vectors is not None:
            named.append((number, "vectors", vectors))
        if attributes is not None:
            named.append((number, "attributes", attributes))
    count = len(ids)
    columns: dict[str, list[Any]] = defaultdict(lambda: [MISSING] * count)
    for name, values in (("payload", payloads), ("document", documents)):
        if values.count(None) < len(values):
            if name not in written:
                raise InvalidInputError(f"The table has no column {name}.")
            columns[name] = [MISSING if value is None else value for value in values]
    columns |= {name: [MISSING] * count for name, one in written.items() if one.is_always_written}
    for number, part, values in named:
        where = f"{part} of {_row_name(number, ids[number - first_row])}"
        for name, value in named_values(written, part, values, where):
            columns[name][number - first_row] = value
    return ids, embeddings, columns


def _row_name(number: int, key: object) -> str:
    return f"row {number} (id {key!r:.60})" if isinstance(key, str) else f"row {number}"


def _check_mapping(item: object, name: str) -> None:
    if not isinstance(item, Mapping):
        raise InvalidInputError(
            f"{name} is a {type(item).__name__}; pass a VectorRecord or a mapping with its fields."
        )
    if not item.keys() <= _FIELDS:
        unknown = sorted(map(str, item.keys() - _FIELDS))
        raise InvalidInputError(
            f"{name} has unknown fields {unknown}; a record has {', '.join(sorted(_FIELDS))}."
        )
    for field in ("id", "embedding"):
        if field not in item:
            raise InvalidInputError(f"{name} lacks {field!r}.")


def _length(embeddings: list[Any]) -> int:
    """About how long they are, where the column takes any; what is no vector is refused later."""
    try:
        return max(1, len(embeddings[0]))
    except (IndexError, TypeError):
        return 1
