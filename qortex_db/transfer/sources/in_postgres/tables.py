"""A table with embeddings in some PostgreSQL, read by a repository of ours over it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pgvector.sqlalchemy as reflected
from sqlalchemy import ARRAY, JSON, Integer, MetaData, Numeric, Table, Text, event, inspect, text
from sqlalchemy import types as sql_types
from sqlalchemy.dialects.postgresql import DOMAIN
from sqlalchemy.exc import NoSuchTableError
from sqlalchemy.orm import registry

from qortex_db.database import Database
from qortex_db.errors import InvalidInputError, NotFoundError, QortexDbError
from qortex_db.messages import shown
from qortex_db.models.collection import COLLECTION, Collection
from qortex_db.models.vector_spec import HNSW, IVFFlat, VectorSpec
from qortex_db.names import qualified
from qortex_db.transfer.source import (
    UNNAMED,
    Page,
    SourceDescription,
    SourceReject,
    SourceRow,
    SourceVector,
    SparseComponents,
)
from qortex_db.types import SparseVector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from qortex_db.models.vector_spec import IndexSpec, Metric, Storage
    from qortex_db.repositories import VectorRepository
    from qortex_db.repositories.vectors.rows.records import VectorRecord
    from qortex_db.settings import Settings
    from qortex_db.transfer.source import Position, SourceId

_STORAGES: Final[Mapping[type, Storage]] = {
    reflected.VECTOR: "full",
    reflected.HALFVEC: "half",
    reflected.SPARSEVEC: "sparse",
}
_METRICS: Final[Mapping[str, Metric]] = {
    "cosine": "cosine",
    "l2": "l2",
    "ip": "inner_product",
    "l1": "l1",
}
_READABLE: Final = (
    *(sql_types.String, sql_types.Boolean, Integer, Numeric, sql_types.Float, sql_types.Uuid),
    *(sql_types.DateTime, sql_types.Date, sql_types.Time, sql_types.Interval, JSON, ARRAY, Text),
)
"""The types of columns whose values payloads can have."""
_EF_SEARCH: Final = 1_000
_INFINITIES: Final[Mapping[Any, str]] = {
    datetime.max: "infinity",  # noqa: DTZ901 - as the driver has it
    datetime.min: "-infinity",  # noqa: DTZ901 - the same
    date.max: "infinity",
    date.min: "-infinity",
}
"""What PostgreSQL says of the moments that the driver has for them."""

_INDEXES: Final = text("""
SELECT a.attname, m.amname, o.opcname, c.reloptions
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = c.relam
JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[0]
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indrelid = pg_catalog.to_regclass(CAST(:table_name AS text)) AND i.indisvalid
  AND m.amname IN ('hnsw', 'ivfflat')
ORDER BY c.relname
""")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a table are what; None is left to what they are called or are.

    Attributes:
        id: By default the primary key.
        embedding: One, or several with commas, the main one first; by default all of pgvector's
            types.
        document: Of the text; None leaves it to the plan.
        payload: Of a JSON object; None for none.
        metric: Where no index tells what vectors are compared by.
        left_out: Columns that a framework keeps for itself.
    """

    id: str | None = None
    embedding: str | None = None
    document: str | None = None
    payload: str | None = None
    metric: Metric | None = None
    left_out: Sequence[str] = field(default=())


async def open_database(location: str, settings: Settings | None) -> Database:
    """The database of a DSN, or that of settings where it is empty."""
    if not location and settings is None:
        raise InvalidInputError("Say which database the table is in, by a DSN.")
    given = settings if not location and settings is not None else location
    return await Database.connect(given).open()


def place_of(database: Database) -> str:
    """Where a database is, without its user and password."""
    url = database.engine.url
    host = url.host or url.query.get("host", "")
    port = f":{url.port}" if url.port else ""
    return f"{host}{port}/{url.database or ''}"


class TableSource:
    """A table, or those of its rows that a filter is about.

    Args:
        database: Open; it is closed with this.
        name: Of the table, as table or schema.table.
        row: Makes what others call a row of one of the repository's.
        where: A filter of ours.
        hidden: Columns that `where` needs, and that are no keys of a row's payload.
    """

    def __init__(
        self,
        database: Database,
        label: str,
        found: _Found,
        *,
        row: Callable[[SourceRow], SourceRow] | None = None,
        where: Mapping[str, Any] | None = None,
        hidden: Sequence[str] = (),
    ) -> None:
        self._database = database
        self._label = label
        self._found = found
        self._row = row
        self._where = where
        self._hidden = hidden

    @classmethod
    async def of(
        cls,
        database: Database,
        kind: str,
        name: str,
        columns: Columns,
        **options: Any,
    ) -> TableSource:
        """A table, by what the database says of it.

        Raises:
            NotFoundError: There is no such table.
            InvalidInputError: It has no vectors, or no such column, or no key of one column.
        """
        async with database.engine.connect() as connection:
            found = await connection.run_sync(_look, name, columns)
        return cls(database, f"{kind} {place_of(database)} {name}", found, **options)

    @property
    def label(self) -> str:
        """The database and the table."""
        return self._label

    @property
    def _vectors(self) -> VectorRepository[Any]:
        return self._database.collection(self._found.model, self._found.collection)

    async def describe(self) -> SourceDescription:
        """By its columns and indexes."""
        rows = await self._vectors.count(where=self._where)
        return SourceDescription(
            rows, self._found.vectors, left_out=self._found.left_out, notes=self._found.notes
        )

    async def pages(self, after: Position, size: int) -> AsyncIterator[Page]:
        """Rows in the order of their keys, by the last one seen."""
        vectors, limit = self._vectors, min(size, 10_000)
        while True:
            page = await vectors.scroll(
                limit=limit, after=after, where=self._where, with_embedding=True
            )
            after = page.next
            rows, rejects = [], []
            for record in page.records:
                try:
                    rows.append(self._made(record))
                except InvalidInputError as error:
                    rejects.append(SourceReject(str(record.id), str(error)))
            yield Page(rows, after, rejects)
            if after is None:
                return

    async def get(self, ids: Sequence[SourceId]) -> list[SourceRow]:
        """These, by their keys."""
        found = await self._vectors.get([self._found.key(each) for each in ids])
        return [self._made(record) for record in found.values()]

    async def nearest(self, vector: str, query: Any, limit: int) -> list[SourceId] | None:
        """By its index, if it has one."""
        spec = self._found.specs[vector]
        options: dict[str, Any] = {} if vector == UNNAMED else {"using": spec.column}
        if spec.index is not None and spec.index.method == "hnsw":
            options["ef_search"] = _EF_SEARCH
        if isinstance(query, SparseComponents):
            components = dict(zip(query.indices, query.values, strict=True))
            query = SparseVector(components, spec.dimensions or max(components) + 1)
        try:
            hits = await self._vectors.search(
                query, limit=limit, where=self._where, with_payload=False, **options
            )
        except QortexDbError:
            if spec.dimensions is not None:
                raise
            return None  # a column without dimensions, whose vectors have several
        return [self._found.id(hit.id) for hit in hits]

    async def close(self) -> None:
        """Close the database."""
        await self._database.close()

    def _made(self, record: VectorRecord[Any]) -> SourceRow:
        vectors = {UNNAMED: _vector(record.embedding)}
        for name, spec in self._found.specs.items():
            if name != UNNAMED:
                vectors[name] = _vector((record.vectors or {}).get(spec.column))
        given: Any = record.payload
        if not isinstance(given, dict | None):
            raise InvalidInputError(f"{self._found.collection.payload} has to be an object.")
        payload = dict(given or {})
        for name, value in (record.attributes or {}).items():
            if name in self._hidden:
                continue
            free = name
            while free in payload:
                free += "_"
            payload[free] = _INFINITIES.get(_moment(value), value)
        row = SourceRow(self._found.id(record.id), vectors, payload, record.document)
        return row if self._row is None else self._row(row)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a table is."""

    model: Any
    collection: Collection
    specs: Mapping[str, VectorSpec]
    is_composite: bool
    left_out: Sequence[str]
    notes: Sequence[str]

    @property
    def vectors(self) -> list[SourceVector]:
        return [
            SourceVector(
                name,
                None if spec.storage == "sparse" else spec.dimensions,
                spec.metric,
                spec.storage,
                spec.quantization,
                spec.index,
            )
            for name, spec in self.specs.items()
        ]

    def id(self, key: Any) -> SourceId:
        """A key as a row's id: one of several columns is its JSON."""
        if not self.is_composite:
            found: SourceId = key
            return found
        return json.dumps([part if isinstance(part, int) else str(part) for part in key])

    def key(self, given: SourceId) -> Any:
        """The same, back."""
        return tuple(json.loads(str(given))) if self.is_composite else given


def _look(connection: Connection, name: str, columns: Columns) -> _Found:
    """Reflect a table, and find what its columns are."""
    schema, _, table_name = name.rpartition(".")
    told = inspect(connection)
    try:
        listed = told.get_columns(table_name, schema=schema or None)
    except NoSuchTableError:
        raise NotFoundError(f"There is no table {shown(name)} there.") from None
    types = {each["name"]: each["type"] for each in listed}
    unreadable = [
        each
        for each, kind in types.items()
        if type(kind) not in _STORAGES
        and not isinstance(kind.data_type if isinstance(kind, DOMAIN) else kind, _READABLE)
    ]
    chosen = _chosen(types, columns, name)
    others = [each for each in types if type(types[each]) in _STORAGES and each not in chosen]
    kept = [each for each in types if each not in (*unreadable, *others, *columns.left_out)]
    keys = told.get_pk_constraint(table_name, schema=schema or None)["constrained_columns"]
    key = (columns.id,) if columns.id else tuple(keys)
    for each in (*key, *(each for each in (columns.document, columns.payload) if each)):
        if each not in kept:
            raise InvalidInputError(f"{name} has no column {shown(each)} that could be read.")
    if not key:
        raise InvalidInputError(f"{name} has no primary key: say which column is, by id=.")
    indexes = _indexes(connection, name)
    specs = {
        UNNAMED if at == 0 else each: _spec(each, types[each], indexes.get(each), columns.metric)
        for at, each in enumerate(chosen)
    }
    table = _reflected(connection, schema, table_name, kept, specs)
    model: Any = type("Stranger", (), {})
    registry().map_imperatively(model, table, primary_key=[table.c[each] for each in key])
    collection = Collection(
        specs[UNNAMED],
        id=key[0] if len(key) == 1 else key,
        payload=columns.payload,
        document=columns.document,
        payload_index=False,
        language=None,
    )
    left_out = [f"The column {each} ({types[each]}) has no word in JSON." for each in unreadable]
    left_out += [f"The vector {each} is not among those that were told." for each in others]
    notes = [f"A key is the JSON of its columns: {', '.join(key)}."] if len(key) > 1 else []
    return _Found(model, collection, specs, len(key) > 1, left_out, notes)


def _chosen(types: Mapping[str, Any], columns: Columns, name: str) -> list[str]:
    """Which columns are its vectors."""
    found = [each for each, kind in types.items() if type(kind) in _STORAGES]
    if columns.embedding is not None:
        told = [each.strip() for each in columns.embedding.split(",")]
        for each in told:
            if each not in found:
                raise InvalidInputError(f"{name} has no vector {shown(each)}.")
        return told
    dense = [each for each in found if _STORAGES[type(types[each])] != "sparse"]
    if not dense:
        raise InvalidInputError(f"{name} has no column of pgvector's types vector or halfvec.")
    return [dense[0], *(each for each in found if each != dense[0])]


def _indexes(connection: Connection, name: str) -> dict[str, tuple[Metric, IndexSpec]]:
    quoted = qualified(*name.split("."))
    found: dict[str, tuple[Metric, IndexSpec]] = {}
    for column, method, operators, options in connection.execute(_INDEXES, {"table_name": quoted}):
        metric = _METRICS.get(operators.split("_")[-2])
        if metric is None:
            continue
        given = dict(each.split("=") for each in options or ())
        numbers: dict[str, Any] = {each: int(value) for each, value in given.items()}
        index: IndexSpec = HNSW(**numbers) if method == "hnsw" else IVFFlat(**numbers)
        found.setdefault(column, (metric, index))
    return found


def _spec(
    column: str, kind: Any, indexed: tuple[Metric, IndexSpec] | None, told: Metric | None
) -> VectorSpec:
    metric, index = indexed or ("cosine", None)
    size = getattr(kind, "dim", None)
    return VectorSpec(
        size if size and size > 0 else None,
        told or metric,
        _STORAGES[type(kind)],
        index=None if size is None else index,
        column=column,
    )


def _reflected(
    connection: Connection,
    schema: str,
    name: str,
    kept: Sequence[str],
    specs: Mapping[str, VectorSpec],
) -> Table:
    """The table, with our types in the place of pgvector's."""
    ours = {spec.column: (called, spec) for called, spec in specs.items()}
    metadata = MetaData()

    def give_type(_inspector: Any, _table: Any, column: dict[str, Any]) -> None:
        if column["name"] in ours:
            column["type"] = ours[column["name"]][1].type

    event.listen(metadata, "column_reflect", give_type)
    table = Table(
        name,
        metadata,
        schema=schema or None,
        autoload_with=connection,
        include_columns=list(kept),
        resolve_fks=False,
    )
    for column, (called, spec) in ours.items():
        if called != UNNAMED:
            table.c[column].info[COLLECTION] = spec
    return table


def _moment(value: Any) -> Any:
    """A time without its offset, or a date; None of anything else."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    return value if isinstance(value, date) else None


def _vector(value: Any) -> Any:
    if isinstance(value, SparseVector):
        return SparseComponents(value.indices(), value.values())
    return None if value is None else np.asarray(value)
