"""Parts as Parquet files, which pandas, polars and others read as they are."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from qortex_db.errors import InvalidInputError
from qortex_db.transfer.archive import kinds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from qortex_db.transfer.archive.kinds import Field
    from qortex_db.transfer.archive.manifest import Column


def arrow() -> Any:
    """The library.

    Raises:
        InvalidInputError: It is not installed.
    """
    try:
        return importlib.import_module("pyarrow")
    except ModuleNotFoundError:
        raise InvalidInputError(
            'Parquet needs pyarrow: pip install "qortex-db[parquet]", or use the format jsonl.'
        ) from None


class Writer:
    """One file, a row group for each batch."""

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        self._arrow = arrow()
        parquet = importlib.import_module("pyarrow.parquet")
        self._columns = columns
        self._schema = self._arrow.schema(
            [(column.name, _type(self._arrow, column)) for column in columns]
        )
        self._writer = parquet.ParquetWriter(
            path, self._schema, compression="snappy", use_dictionary=False, write_statistics=False
        )

    def write(self, fields: Sequence[Sequence[Field]]) -> None:
        """One more batch, by columns."""
        arrays = [
            _array(self._arrow, column, each)
            for column, each in zip(self._columns, fields, strict=True)
        ]
        batch = self._arrow.record_batch(arrays, schema=self._schema)
        self._writer.write_batch(batch, row_group_size=max(1, batch.num_rows))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.close()


def read(path: Path, columns: Sequence[Column]) -> Iterator[list[list[Field]]]:
    """The batches of a file, by columns."""
    arrow()
    parquet = importlib.import_module("pyarrow.parquet")
    with parquet.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            yield [_fields(column, table.column(column.name)) for column in columns]


def _type(pa: Any, column: Column) -> Any:
    kind = column.kind
    if kind in kinds.VECTORS:
        return pa.list_(pa.float32(), column.dimensions or -1)
    plain = {
        "boolean": pa.bool_(),
        "int2": pa.int16(),
        "int4": pa.int32(),
        "int8": pa.int64(),
        "float4": pa.float32(),
        "float8": pa.float64(),
        "timestamptz": pa.timestamp("us", "UTC"),
        "timestamp": pa.timestamp("us"),
        "date": pa.date32(),
        "bytes": pa.binary(),
        "words": pa.binary(),
    }
    return plain.get(kind, pa.string())


def _array(pa: Any, column: Column, fields: Sequence[Field]) -> Any:
    kind, type_ = column.kind, _type(pa, column)
    if kind in kinds.VECTORS:
        return _vectors(pa, column, fields)
    if kind in kinds.NUMBERS or kind in kinds.MOMENTS:
        code = kinds.NUMBERS.get(kind) or kinds.MOMENTS[kind]
        values = kinds.numbers(fields, code)
        if kind == "boolean":
            return pa.array(values != 0, type_, mask=kinds.missing(fields))
        if kind in kinds.MOMENTS:
            values = kinds.since_1970(kind, values)
        native = values.astype(np.dtype(code).newbyteorder("="))
        made = pa.array(native, mask=kinds.missing(fields))
        return made.view(type_) if kind in kinds.MOMENTS else made
    if kind == "json":
        fields = [field and kinds.json_text(field) for field in fields]
    elif kind == "uuid":
        fields = [field and kinds.uuid_text(field) for field in fields]
    made = pa.array(fields, pa.binary())
    return made if kind in kinds.BYTES else made.cast(pa.string())


def _vectors(pa: Any, column: Column, fields: Sequence[Field]) -> Any:
    code = kinds.VECTORS[column.kind]
    there = [field for field in fields if field is not None]
    values = pa.array(np.frombuffer(kinds.joined(there), code).astype(np.float32))
    if column.dimensions:
        return pa.FixedSizeListArray.from_arrays(values, column.dimensions)
    size = np.dtype(code).itemsize
    sizes = [0 if field is None else (len(field) - 4) // size for field in fields]
    offsets = pa.array(np.cumsum([0, *sizes], dtype=np.int32))
    nulls = kinds.missing(fields)
    mask = pa.array(nulls) if nulls.any() else None
    return pa.ListArray.from_arrays(offsets, values, mask=mask)


def _fields(column: Column, chunked: Any) -> list[Field]:
    kind = column.kind
    array = chunked.combine_chunks()
    pa = arrow()
    if isinstance(array, pa.ChunkedArray):  # as it is for no rows
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    nulls = array.is_null().to_numpy(zero_copy_only=False)
    if kind in kinds.VECTORS:
        sizes = importlib.import_module("pyarrow.compute").list_value_length(array).to_pylist()
        flat = array.flatten().to_numpy(zero_copy_only=False)
        found: list[Field] = []
        at = 0
        for size in sizes:
            if size is None:
                found.append(None)
            else:
                found.append(kinds.vector_field(flat[at : at + size], kind))
                at += size
        return found
    if kind in kinds.NUMBERS or kind in kinds.MOMENTS:
        code = kinds.NUMBERS.get(kind) or kinds.MOMENTS[kind]
        if kind in kinds.MOMENTS:
            array = array.view(pa.int32() if kind == "date" else pa.int64())
        filled = array.fill_null(False if kind == "boolean" else 0)
        values = filled.to_numpy(zero_copy_only=False)
        if kind in kinds.MOMENTS:
            values = kinds.since_2000(kind, values)
        return kinds.fields_of(values, code, nulls.tolist())
    texts: list[Field] = array.view(pa.binary()).to_pylist()
    if kind == "json":
        return [None if text is None else kinds.json_field(text) for text in texts]
    if kind == "uuid":
        return [None if text is None else kinds.uuid_field(text) for text in texts]
    return texts
