"""The indexes of tables: whether they are valid, and how much larger than new ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from qortex_db.planning import index_bytes
from qortex_db.planning.sizes import M, lists_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qortex_db.engine import Executor
    from qortex_db.planning.sizes import Storage

VECTOR_METHODS: Final = {"hnsw", "ivfflat"}
"""pgvector's."""
BLOATED: Final = 2.0
"""How many times as large as a new one an index is that had better be built anew."""
SMALL_BYTES: Final = 16 * 2**20
"""An index of less is small whatever is in it."""
_M: Final = re.compile(r"\bm\s*=\s*'?(\d+)")
_INDEXES: Final = text("""
SELECT i.relname::text, t.relname::text, n.nspname::text, a.amname::text,
       x.indisvalid AND x.indisready,
       pg_catalog.pg_relation_size(i.oid), pg_catalog.pg_get_indexdef(i.oid),
       t.reltuples::int8,
       (SELECT nullif(pg_catalog.max(k.atttypmod), -1::int4) FROM pg_catalog.pg_attribute k
        WHERE k.attrelid = i.oid AND a.amname IN ('hnsw'::name, 'ivfflat'::name))
FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_class t ON t.oid = x.indrelid
JOIN pg_catalog.pg_namespace n ON n.oid = i.relnamespace
JOIN pg_catalog.pg_am a ON a.oid = i.relam
WHERE t.oid::int8 = ANY (CAST(:oids AS int8[])) OR t.oid IN (
    SELECT p.relid::oid FROM pg_catalog.unnest(CAST(:oids AS int8[])) o (id),
        pg_catalog.pg_partition_tree(o.id::oid::regclass) p)
ORDER BY t.relname, i.relname
LIMIT 1000
""")


@dataclass(frozen=True, slots=True)
class Index:
    """An index on one of the tables.

    Attributes:
        schema: Of both.
        rows: As the planner thinks, of the index's own table; negative where it was not analyzed.
        dimensions: What a vector index holds; None for another, and where it is not declared.
    """

    name: str
    table: str
    schema: str
    method: str
    is_valid: bool
    bytes: int
    definition: str
    rows: int
    dimensions: int | None

    @property
    def holds_vectors(self) -> bool:
        """Whether it is pgvector's."""
        return self.method in VECTOR_METHODS

    @property
    def fresh_bytes(self) -> int | None:
        """About what a vector index would take if it were built now; None where nothing tells."""
        if not self.holds_vectors or self.rows <= 0 or not self.dimensions or self.dimensions < 0:
            return None
        if self.method == "ivfflat":
            return lists_bytes(self.rows, self.dimensions, self._storage)
        m = _M.search(self.definition)
        return index_bytes(self.rows, self.dimensions, self._storage, M if m is None else int(m[1]))

    @property
    def is_bloated(self) -> bool:
        """Whether it had better be built anew."""
        fresh = self.fresh_bytes
        return fresh is not None and self.bytes > max(BLOATED * fresh, SMALL_BYTES)

    @property
    def _storage(self) -> Storage:
        if "bit_" in self.definition:
            return "binary"
        return "half" if "halfvec" in self.definition else "full"


async def read_indexes(executor: Executor, oids: Iterable[int]) -> tuple[Index, ...]:
    """Those of tables, and of their partitions; a thousand at most.

    Args:
        oids: The tables' numbers in the catalogue.
    """
    rows = (await executor.run(_INDEXES, {"oids": list(oids)})).rows
    return tuple(Index(*row) for row in rows)
