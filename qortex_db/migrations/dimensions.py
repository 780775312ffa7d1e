"""The dimension that a database was upgraded with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from qortex_db.errors import InvalidInputError
from qortex_db.types import check_setting

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from qortex_db.settings import Settings

MAX_HNSW_DIMENSIONS: Final = 2000
"""What an HNSW index on a vector column holds at most."""

# Without a schema, the table that the search path finds: the one that statements use.
_HELD = text("""
SELECT attribute.atttypmod FROM pg_catalog.pg_attribute attribute
WHERE attribute.attname = 'vec'
  AND attribute.attrelid
    = to_regclass(coalesce(quote_ident(:schema) || '.', '') || 'qortex_vectors')::oid
""")


def held_dimensions(connection: Connection, schema: str | None) -> int | None:
    """What the embedding column holds, None where there is none or it declares nothing."""
    typmod = connection.execute(_HELD, {"schema": schema}).scalar()
    return None if typmod is None or typmod < 0 else int(typmod)


def check_dimensions(connection: Connection, settings: Settings) -> None:
    """Refuse a setting that is not what the column holds, before anything is migrated.

    Raises:
        InvalidInputError: A new column could not hold it.
        DimensionMismatchError: The column holds another.
    """
    held = held_dimensions(connection, settings.db_schema)
    wanted = settings.dimensions
    if held is None:
        check_indexable(wanted)
    check_setting(wanted, held)


def check_indexable(dimensions: int | None) -> None:
    """Refuse what the baseline's index can't hold.

    Raises:
        InvalidInputError: It is more than 2,000.
    """
    if dimensions is not None and dimensions > MAX_HNSW_DIMENSIONS:
        raise InvalidInputError(
            f"QORTEX_VEC_DIMENSIONS is {dimensions}, but an HNSW index on a vector column holds at "
            f"most {MAX_HNSW_DIMENSIONS}. Shorten the embeddings (many models can), or keep them "
            "in a table of your own with halfvec."
        )
