"""Rows of a collection as lines of JSON, and back: what `export` writes, `ingest` reads."""

from __future__ import annotations

import base64
import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import numpy as np
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from qortex_db.errors import InvalidInputError
from qortex_db.models import collection_of
from qortex_db.repositories.vectors.rows.records import ReadAttributes
from qortex_db.transfer.sources.in_files.json_lines import MAX_LINE_BYTES
from qortex_db.types.pydantic_types import SPARSE_KEYS, in_json, sparse_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Table

    from qortex_db import SearchHit, VectorRecord

_IN_JSON: Final[
    dict[type, Callable[[Any], Any]]
] = {  # what JSON has no word for, by what it becomes there
    **{kind: TypeAdapter(kind).validate_python for kind in (date, datetime, time, timedelta)},
    Decimal: TypeAdapter(Decimal).validate_python,
    UUID: TypeAdapter(UUID).validate_python,
    bytes: base64.urlsafe_b64decode,
}
_NUMBERS: Final = {int, float}


def written(record: VectorRecord[Any]) -> bytes:
    """A row as JSON on one line."""
    row = {
        "id": record.id,
        "embedding": record.embedding,
        "payload": record.payload,
        "document": record.document,
        "vectors": record.vectors,
        "attributes": _named(record.attributes),
    }
    for part in ("vectors", "attributes"):
        if row[part] is None:
            del row[part]
    text = to_json(row, bytes_mode="base64", inf_nan_mode="constants", fallback=in_json).decode()
    if not text.isprintable():  # as a terminal that it is written to would obey
        text = "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)
    return f"{text}\n".encode()


def told(hit: SearchHit[Any]) -> dict[str, Any]:
    """A hit as JSON has it."""
    found: dict[str, Any] = {
        "id": hit.id,
        "score": hit.score,
        "payload": hit.payload,
        "document": hit.document,
    }
    if hit.attributes is not None:
        found["attributes"] = _named(hit.attributes)
    read: dict[str, Any] = json.loads(
        to_json(found, bytes_mode="base64", inf_nan_mode="constants", fallback=in_json)
    )
    return read


def _named(attributes: Any) -> Any:
    """Attributes, with members of enumerations by their names, as the database has them."""
    if attributes is None:
        return None
    return {
        name: value.name if isinstance(value, Enum) else value for name, value in attributes.items()
    }


class RowReader:
    """Makes records of lines."""

    def __init__(self, table: Table) -> None:
        own = collection_of(table).attributes
        self._attributes = {table.c[key].name: _reader(table.c[key].type) for key in own}

    def read(self, line: bytes) -> dict[str, Any]:
        """A record, as `ingest` checks it.

        Raises:
            InvalidInputError: It is no JSON object, or a part of it can't be read; no value is
                quoted.
        """
        if not line:
            raise InvalidInputError(f"It is longer than {MAX_LINE_BYTES:,} bytes.")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise InvalidInputError("It is no JSON.") from None
        if not isinstance(row, dict):
            raise InvalidInputError("It is no JSON object.")
        if "id" not in row:
            raise InvalidInputError("It has no id.")
        if isinstance(row["id"], list):  # a key of several columns
            row["id"] = tuple(row["id"])
        row["embedding"] = embedding_of(row.get("embedding"))
        if isinstance(vectors := row.get("vectors"), dict):
            row["vectors"] = {name: embedding_of(value) for name, value in vectors.items()}
        if isinstance(attributes := row.get("attributes"), dict):
            read = {name: self._attribute(name, value) for name, value in attributes.items()}
            row["attributes"] = ReadAttributes(read)
        return row

    def _attribute(self, name: str, value: Any) -> Any:
        if name not in self._attributes:
            raise InvalidInputError("It has an attribute that is no column of the collection's.")
        read = self._attributes[name]
        if read is None or value is None:
            return value
        try:
            return read(value)
        except (ValidationError, ValueError, TypeError):
            raise InvalidInputError(f"Its attribute {name} is not what the column holds.") from None


def _reader(kind: Any) -> Callable[[Any], Any] | None:
    try:
        return _IN_JSON.get(kind.python_type)
    except NotImplementedError:
        return None


def embedding_of(given: Any) -> Any:
    """An embedding of JSON: an array of float32, or a sparse vector."""
    if isinstance(given, dict) and given.keys() == SPARSE_KEYS:
        try:
            return sparse_of(given)
        except (TypeError, ValueError):
            raise InvalidInputError("A sparse vector of it can't be read.") from None
    if isinstance(given, list) and set(map(type, given)) <= _NUMBERS and given:
        try:
            with np.errstate(over="ignore"):  # what is infinite then is refused with its row
                return np.asarray(given, np.float32)  # a tenth of what a list takes
        except OverflowError:
            return given
    return given
