"""Where an import goes: a collection that is there, and whether it has room for what comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qortex_db.errors import DimensionMismatchError, InvalidInputError
from qortex_db.messages import shown
from qortex_db.mirrors import original_of
from qortex_db.models import QortexVector
from qortex_db.models.collection import collection_of
from qortex_db.models.mapping import collection_table, model_named
from qortex_db.models.vector_spec import DEFAULT_VECTOR

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qortex_db.database import Database
    from qortex_db.models import Collection
    from qortex_db.models.vector_spec import VectorSpec
    from qortex_db.repositories import VectorRepository
    from qortex_db.transfer.planning import ImportPlan
    from qortex_db.uow import UnitOfWork


@dataclass(frozen=True, slots=True)
class Target:
    """A collection, or one namespace of it.

    Attributes:
        model: A model, or the name of its table; by default `qortex_vectors`.
        mapping: Which columns are what, of a model that does not say so.
        namespace: Of a collection that declares one.
    """

    model: type[object] | str = QortexVector
    mapping: Collection | None = None
    namespace: Any = None

    @property
    def _table(self) -> Any:
        model = model_named(self.model) if isinstance(self.model, str) else self.model
        return collection_table(model, self.mapping)

    @property
    def label(self) -> str:
        """What it is called in a checkpoint."""
        name: str = original_of(self._table).fullname
        return name if self.namespace is None else f"{name} of {self.namespace}"

    @property
    def specs(self) -> Mapping[str, VectorSpec]:
        """Its vectors, by their names."""
        return collection_of(self._table).vectors

    def of(self, home: UnitOfWork | Database) -> VectorRepository[Any]:
        """Its repository, of a unit of work or a Database."""
        return home.collection(self.model, self.mapping, namespace=self.namespace)

    def _check_columns(self) -> None:
        """Refuse columns that every row would have to have a value for."""
        table = self._table
        for name in collection_of(table).attributes:
            column = table.c[name]
            made = (column.default, column.server_default, column.identity, column.computed)
            if not column.nullable and all(each is None for each in made):
                raise InvalidInputError(
                    f"{self.label}.{column.name} is NOT NULL and has no default, and rows of a "
                    "source bring no value for it: give it one, or import into another table."
                )

    async def check(self, home: UnitOfWork | Database, plan: ImportPlan) -> list[str]:
        """What is otherwise than in the source, a sentence each.

        Raises:
            InvalidInputError: A vector of the source has no place here.
            DimensionMismatchError: One has another number of dimensions.
        """
        notes, specs = [], self.specs
        self._check_columns()
        facts = await self.of(home)._vectors.facts(anew=True)  # noqa: SLF001 - of this package
        for name, target in plan.vectors.items():
            wanted, spec = plan.specs[target], specs.get(target)
            if spec is None:
                raise InvalidInputError(
                    f"{self.label} has no vector {target} for the source's {shown(name)}: leave it "
                    "out (--leave-out), or have a model written that has it (--write-model)."
                )
            if (spec.storage == "sparse") is not (wanted.storage == "sparse"):
                raise InvalidInputError(
                    f"{self.label}.{target} is of {spec.storage} storage, the source's "
                    f"{shown(name)} of {wanted.storage}."
                )
            size = facts.dimensions if target == DEFAULT_VECTOR else spec.dimensions
            if wanted.storage != "sparse":
                _check_dimensions(f"{self.label}.{target}", size, name, wanted.dimensions)
            if spec.metric != wanted.metric:
                notes.append(
                    f"{self.label}.{target} is compared by {spec.metric}, the source's "
                    f"{shown(name)} by {wanted.metric}: searches may order rows otherwise."
                )
        return notes


def _check_dimensions(column: str, held: int | None, name: str, given: int | None) -> None:
    if held is not None and given is not None and held != given:
        raise DimensionMismatchError(
            f"{column} has {held} dimensions, the source's {shown(name)} has {given}: have a model "
            "written that fits (--write-model).",
            expected=held,
            actual=given,
        )
