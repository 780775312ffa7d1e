"""Parts as JSON lines: an object a row, with its keys in the order of the columns."""

from __future__ import annotations

import gzip
import json
from typing import IO, TYPE_CHECKING, Any, Final, Self

import numpy as np

from qortex_db.errors import InvalidInputError
from qortex_db.transfer.archive import kinds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from qortex_db.transfer.archive.kinds import Field
    from qortex_db.transfer.archive.manifest import Column

_BATCH_ROWS: Final = 1_000
_BATCH_BYTES: Final = 16 * 2**20
_NO_NUMBERS: Final = {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}
_INFINITIES: Final = ("-infinity", "infinity")
_decoder: Final = json.JSONDecoder()


def _opened(path: Path, mode: str) -> IO[bytes]:
    if path.suffix == ".gz":
        # Without a name or a time in it, so that the same rows are the same file.
        return gzip.GzipFile(path, mode, compresslevel=1, mtime=0)  # type: ignore[return-value]
    return path.open(mode)


class Writer:
    """One file."""

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._keys = _keys(columns)
        self._file = _opened(path, "wb")

    def write(self, fields: Sequence[Sequence[Field]]) -> None:
        """One more batch, by columns."""
        written = [
            _written(column, each) for column, each in zip(self._columns, fields, strict=True)
        ]
        keys = self._keys
        lines = (
            "".join(part for pair in zip(keys, row, strict=True) for part in pair)
            for row in zip(*written, strict=True)
        )
        self._file.write("".join(f"{line}}}\n" for line in lines).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


def read(path: Path, columns: Sequence[Column]) -> Iterator[list[list[Field]]]:
    """The batches of a file, by columns."""
    keys = _keys(columns)
    batch: list[list[Field]] = [[] for _ in columns]
    size = 0
    with _opened(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                _read_line(line.decode(), keys, columns, batch)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InvalidInputError(
                    f"{path.name}, line {number}: it is not as it was written "
                    f"({type(error).__name__})."
                ) from None
            size += len(line)
            if len(batch[0]) >= _BATCH_ROWS or size >= _BATCH_BYTES:
                yield batch
                batch, size = [[] for _ in columns], 0
    if batch[0]:
        yield batch


def _keys(columns: Sequence[Column]) -> list[str]:
    names = [json.dumps(column.name, ensure_ascii=False) for column in columns]
    return [f"{', ' if at else '{'}{name}: " for at, name in enumerate(names)]


def _read_line(
    line: str, keys: Sequence[str], columns: Sequence[Column], batch: list[list[Field]]
) -> None:
    """Read what was written: a value's own text is what tells a jsonb's numbers exactly."""
    at = 0
    for key, column, fields in zip(keys, columns, batch, strict=True):
        if not line.startswith(key, at):
            raise ValueError(key)
        start = at + len(key)
        if column.kind == kinds.ARRAY and line[start] == "[":
            at = line.index("]", start) + 1
            fields.append(line[start:at].encode())
            continue
        value, at = _decoder.raw_decode(line, start)
        is_null = value is None and (column.kind != "json")
        if column.kind == "json":
            # A JSON null in the column is told from a missing value by a space that jsonb lacks.
            is_null = line[start:at] == "null" and line.startswith(" ", at)
            at += is_null
        fields.append(None if is_null else _field(column.kind, value, line[start:at]))
    if line[at:] not in {"}\n", "}"}:
        raise ValueError(at)


def _field(kind: str, value: Any, text: str) -> bytes:
    if kind == "json":
        return kinds.json_field(text.encode())
    if kind in kinds.NUMBERS:
        number = float(_NO_NUMBERS[value]) if isinstance(value, str) else value
        return np.asarray(number).astype(kinds.NUMBERS[kind]).tobytes()
    if kind in kinds.MOMENTS:
        if value in _INFINITIES:
            moment = np.asarray(kinds.infinities(kind)[_INFINITIES.index(value)])
        else:
            unit = "D" if kind == "date" else "us"
            since = np.array([value.removesuffix("Z")], f"datetime64[{unit}]").astype(np.int64)
            moment = kinds.since_2000(kind, since)
        return moment.astype(kinds.MOMENTS[kind]).tobytes()
    if kind in kinds.BYTES:
        return bytes.fromhex(value.removeprefix("\\x"))
    return kinds.uuid_field(value.encode()) if kind == "uuid" else value.encode()


def _written(column: Column, fields: Sequence[Field]) -> list[str]:
    kind = column.kind
    nothing = "null " if kind == "json" else "null"
    if kind in kinds.MOMENTS:
        texts = _moments(kind, fields)
        return [nothing if each is None else text for each, text in zip(fields, texts, strict=True)]
    if kind in kinds.NUMBERS:
        code = kinds.NUMBERS[kind]
        values = kinds.numbers(fields, code)
        numbers = values.astype(bool).tolist() if kind == "boolean" else values.tolist()
        return [
            nothing if each is None else _number(number)
            for each, number in zip(fields, numbers, strict=True)
        ]
    return [nothing if field is None else _text(kind, field) for field in fields]


def _number(value: float) -> str:
    said = json.dumps(value)
    return f'"{said}"' if said in _NO_NUMBERS else said


def _text(kind: str, field: bytes) -> str:
    if kind == "json":
        return kinds.json_text(field).decode()
    if kind == kinds.ARRAY:
        return field.decode()
    if kind in kinds.BYTES:
        return f'"\\\\x{field.hex()}"'
    text = kinds.uuid_text(field) if kind == "uuid" else field
    return json.dumps(text.decode(), ensure_ascii=False)


def _moments(kind: str, fields: Sequence[Field]) -> list[str]:
    sent = kinds.numbers(fields, kinds.MOMENTS[kind])
    low, high = kinds.infinities(kind)
    numbers = kinds.since_1970(kind, np.where((sent == low) | (sent == high), 0, sent))
    unit = "D" if kind == "date" else "us"
    zone = "Z" if kind == "timestamptz" else ""
    written = np.datetime_as_string(numbers.astype(f"datetime64[{unit}]")).tolist()
    texts = [f'"{each}{zone}"' for each in written]
    for number, name in ((low, _INFINITIES[0]), (high, _INFINITIES[1])):
        for at in np.flatnonzero(sent == number):
            texts[at] = f'"{name}"'
    return texts
