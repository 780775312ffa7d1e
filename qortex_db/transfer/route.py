"""From where an import goes to where, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qortex_db.models.vector_spec import DEFAULT_VECTOR

if TYPE_CHECKING:
    from qortex_db.database import Database
    from qortex_db.repositories import VectorRepository
    from qortex_db.transfer.planning import ImportPlan
    from qortex_db.transfer.source import Source
    from qortex_db.transfer.target import Target
    from qortex_db.transfer.translating import Translator


@dataclass(frozen=True, slots=True)
class Route:
    """A source, a collection of a Database, and the plan and the translator between them."""

    source: Source
    database: Database
    target: Target
    plan: ImportPlan
    translator: Translator

    @property
    def further(self) -> list[str]:
        """What the vectors that come are called there, beside the collection's own."""
        return [name for name in self.plan.specs if name != DEFAULT_VECTOR]

    @property
    def vectors(self) -> VectorRepository[Any]:
        """The collection, by calls by themselves."""
        return self.target.of(self.database)
