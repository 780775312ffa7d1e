"""What indexes are, in SQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Column, Index, MetaData, Table, Text, text
from sqlalchemy.dialects import postgresql

from qortex_db.filters import payload_index

if TYPE_CHECKING:
    from qortex_db.filters import Kind

VECTOR_METHODS: Final = ("hnsw", "ivfflat")


@dataclass(frozen=True, slots=True)
class IndexShape:
    """What an index is, in SQL.

    Attributes:
        method: As "hnsw".
        on: A column, or an expression in parentheses.
        opclass: None for the type's default.
        options: What stands in WITH, by name.
        where: None for every row.
    """

    method: str
    on: str
    opclass: str | None = None
    options: tuple[tuple[str, Any], ...] = ()
    where: str | None = None

    @classmethod
    def of(cls, index: Index) -> IndexShape:
        """What a declared index is."""
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
        compiler = dialect.statement_compiler(dialect, None)
        said = index.dialect_options["postgresql"]
        part: Any = next(iter(index.expressions))
        where = said["where"]
        return cls(
            said["using"] or "btree",
            compiler.process(part.self_group(), include_table=False, literal_binds=True),
            said["ops"].get(part.key) if getattr(part, "key", None) else None,
            tuple(sorted(said["with"].items())),
            where
            if where is None or isinstance(where, str)
            else compiler.process(where, include_table=False, literal_binds=True),
        )

    def index(self, name: str, table: str, schema: str | None, *, concurrently: bool) -> Index:
        """It as an index of a table of which nothing else need be known."""
        on = self.on if self.opclass is None else f"{self.on} {self.opclass}"
        return Index(
            name,
            _literal(on),
            postgresql_using=self.method,
            postgresql_with=dict(self.options),
            postgresql_where=None if self.where is None else _literal(self.where),
            postgresql_concurrently=concurrently,
            _table=Table(table, MetaData(), schema=schema),
        )


def _literal(sql: str) -> Any:
    return text(sql.replace(":", r"\:"))  # no parameter


def payload_shape(path: str, kind: Kind, language: str) -> IndexShape:
    """The index that `payload_index` declares."""
    columns = Column("payload", postgresql.JSONB), Column("document", Text)
    table = Table("t", MetaData(), *columns)
    return IndexShape.of(payload_index(table, path, kind, language=language, name="i"))
