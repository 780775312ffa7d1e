"""The statement that samples a collection's rows for its map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, cast, column, literal_column, null, select

from qortex_db.repositories.vectors.rows.row_shape import sent_embedding
from qortex_db.sql import Text, func

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select, Table

MAP_ROWS: Final = 600
"""The points of a map."""
READ_ROWS: Final = 4 * MAP_ROWS
"""About as many rows are read for them: those of some pages of a table are each other's like."""
LONGEST: Final = 60
"""Letters of a value that groups are called by; longer ones are no names of groups."""
_KEYS: Final = 30
_SEED: Final[Any] = literal_column("7::float8")
_KINDS: Final[list[Any]] = [
    literal_column(f"'{kind}'", Text) for kind in ("string", "number", "boolean")
]


def sampled(table: Table, *, rows: int, path: Sequence[str] | None) -> Select[Any]:
    """Some rows, always the same ones: the embedding, and what may colour it, as JSON.

    Args:
        table: Of a collection.
        rows: About how many it has.
        path: To the value that colours; None for all short values of the payload, by their keys.
    """
    share = 100 * READ_ROWS / max(rows, 1)
    source: Any = table
    if share < 100:  # noqa: PLR2004 - per cent
        method = func.system(literal_column(f"{share:.6f}::real"))
        source = table.tablesample(method, name="sampled", seed=_SEED)
    colours: Any = null()
    if "payload" in table.c:
        payload = source.c.payload
        colours = _all(source, payload) if path is None else _one(payload, path)
    embedding: Any = sent_embedding(source.c.vec)
    return (
        select(embedding, cast(colours, Text).label("colours"))
        .where(source.c.vec.is_not(None))
        # Drawn by what they are; of equal ones any is as good.
        .order_by(func.md5(embedding.element))
        .limit(MAP_ROWS)
    )


def _one(payload: Any, path: Sequence[str]) -> Any:
    steps = [bindparam(f"step_{place}", step, type_=Text) for place, step in enumerate(path)]
    value = func.jsonb_extract_path_text(payload, *steps)
    return func.left(value, LONGEST)


def _all(source: Any, payload: Any) -> Any:
    """The short values of a payload, by their keys."""
    each = (
        func.jsonb_each_text(payload)
        .table_valued(column("key", Text), column("value", Text))
        .render_derived(name="each")
    )
    kind = func.jsonb_typeof(func.jsonb_extract_path(payload, each.c.key))
    short = (
        select(each.c.key, each.c.value)
        .where(
            kind.in_(_KINDS),
            func.char_length(each.c.key) <= literal_column(str(LONGEST)),
            func.char_length(each.c.value) <= literal_column(str(LONGEST)),
        )
        .limit(literal_column(str(_KEYS)))
        .correlate(source)
        .subquery("short")
    )
    return select(func.jsonb_object_agg(short.c.key, short.c.value)).scalar_subquery()
