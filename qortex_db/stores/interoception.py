"""qortex's interoception store."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from qortex_db import checks
from qortex_db.errors import InvalidInputError
from qortex_db.observability import traced
from qortex_db.repositories import EdgeStats, validation
from qortex_db.stores.handle import DatabaseHandle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qortex_db.database import Database
    from qortex_db.repositories.interoception.edge_records import EdgeStatsLike
    from qortex_db.view import DatabaseView


class PostgresInteroceptionStore:
    """Factors and edges, with qortex's methods.

    Args:
        pool: A `Database`, or the DSN of one.

    Raises:
        InvalidInputError: The pool is neither a `Database` nor a DSN.
    """

    def __init__(self, pool: Database | DatabaseView | str) -> None:
        self._handle = DatabaseHandle(pool)

    @traced("interoception.pg.load_factors")
    async def load_factors(self) -> dict[str, float]:
        """Every stored weight by node."""
        return await (await self._handle.open()).factors.load()

    @traced("interoception.pg.save_factor")
    async def save_factor(self, node_id: str, weight: float) -> None:
        """Store one weight.

        Raises:
            InvalidInputError: The id or the weight was refused.
        """
        node_id = validation.check_id(node_id, name="node_id")
        await (await self._handle.open()).factors.save({node_id: weight})

    @traced("interoception.pg.save_factors")
    async def save_factors(self, factors: Mapping[str, float]) -> None:
        """Store weights; what is absent stays.

        Raises:
            InvalidInputError: An id or a weight was refused; nothing was stored.
            LimitExceededError: There are more weights than a limit allows.
        """
        if weights := checks.as_dict(factors, name="factors"):
            await (await self._handle.open()).factors.save(weights)

    @traced("interoception.pg.load_edges")
    async def load_edges(self) -> dict[tuple[str, str], EdgeStats]:
        """Every buffered edge by its pair."""
        return await (await self._handle.open()).edges.load()

    @traced("interoception.pg.save_edges")
    async def save_edges(self, buffer: Mapping[tuple[str, str], EdgeStatsLike]) -> None:
        """Store edges, stamped now whatever their `last_seen` says; what is absent stays.

        Raises:
            InvalidInputError: A key or an edge was refused; nothing was stored.
            LimitExceededError: There are more edges than a limit allows.
        """
        if not (edges := checks.as_dict(buffer, name="buffer")):
            return
        stamped = {key: _stamped_now(edge) for key, edge in edges.items()}
        await (await self._handle.open()).edges.save(stamped)

    @traced("interoception.pg.remove_edges")
    async def remove_edges(self, keys: Sequence[tuple[str, str]]) -> None:
        """Forget edges; unknown ones are ignored.

        Raises:
            InvalidInputError: A key is no pair of ids.
            LimitExceededError: There are more keys than a limit allows.
        """
        if pairs := validation.check_list(keys, name="keys", of="list of pairs"):
            await (await self._handle.open()).edges.remove(pairs)

    async def close(self) -> None:
        """Close a database of its own; a shared one stays open."""
        await self._handle.close()


# What qortex's own edges know nothing of.
_FURTHER: Final = {field.name for field in fields(EdgeStats)} - {
    "hit_count",
    "scores",
    "last_seen",
}


def _stamped_now(edge: EdgeStatsLike) -> EdgeStats:
    """All that an edge says, but its time: qortex writes what is no date there."""
    further: dict[str, Any] = {
        name: getattr(edge, name) for name in _FURTHER if hasattr(edge, name)
    }
    try:
        return EdgeStats(edge.hit_count, edge.scores, **further)
    except AttributeError:
        raise InvalidInputError(
            f"An edge is a {type(edge).__name__} without hit_count or scores; pass EdgeStats."
        ) from None
