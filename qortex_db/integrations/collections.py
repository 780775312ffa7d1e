"""Which collection an adapter is about, whose ids are always texts in its framework."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

from qortex_db.errors import InvalidInputError, SchemaVersionError
from qortex_db.models import QortexVector
from qortex_db.models.collection import collection_of
from qortex_db.models.mapping import collection_table, model_named
from qortex_db.models.vector_spec import DEFAULT_VECTOR
from qortex_db.values.keys import IntegerKey, UuidKey, key_type

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from qortex_db.models import Collection
    from qortex_db.models.vector_spec import Metric
    from qortex_db.repositories import VectorRepository
    from qortex_db.uow import Repositories

T = TypeVar("T")
_LEADS: Final = re.compile(r"[.\\]|\A\$|\[\]")


def path_of(key: str) -> str:
    """The path that leads to a key of the payload's whatever is in its name."""
    return _LEADS.sub(r"\\\g<0>", key)


def refuse_others(options: Mapping[str, Any]) -> None:
    """Refuse what a framework passes on that nobody here takes."""
    if options:
        raise InvalidInputError(f"There is no option {min(options)!r}.")


class CollectionOf:
    """A collection, of whatever Database or unit of work it is asked for.

    Args:
        model: A model, or the name of a table; None for `qortex_vectors`.
        mapping: Which columns are what, of a model that does not say so.
        options: Of `Database.collection`.

    Raises:
        InvalidInputError: The model is no collection, or its key is of several columns.
    """

    def __init__(
        self,
        model: type[object] | str | None,
        mapping: Collection | None,
        options: Mapping[str, Any],
    ) -> None:
        self._model = model_named(model) if isinstance(model, str) else model or QortexVector
        self._mapping = mapping
        self._options = dict(options)
        self._table = collection_table(self._model, mapping)
        self._key = key_type(self._table)
        if self._key.is_composite:
            raise InvalidInputError(
                f"The key of {self._table.name} has several columns; the ids of this framework are "
                "texts."
            )

    def __call__(self, database: Repositories) -> VectorRepository[Any]:
        """The repository."""
        return database.collection(self._model, self._mapping, **self._options)

    @property
    def name(self) -> str:
        """The table's."""
        return self._table.name

    @property
    def document_column(self) -> str:
        """What the column of documents is called in the database.

        Raises:
            InvalidInputError: There is none.
        """
        name = collection_of(self._table).document
        if name is None:
            raise InvalidInputError(f"{self.name} has no column of documents.")
        return name

    @property
    def metric(self) -> Metric:
        """Of its own vector."""
        return collection_of(self._table).vectors[DEFAULT_VECTOR].metric

    def key(self, text: object) -> Any:
        """An id as the column has it."""
        is_number = isinstance(text, str) and text.removeprefix("-").isdecimal()
        return int(str(text)) if is_number and isinstance(self._key, IntegerKey) else text

    def new_key(self) -> str:
        """An id for what has none.

        Raises:
            InvalidInputError: Its keys are numbers.
        """
        if isinstance(self._key, IntegerKey):
            raise InvalidInputError(f"The ids of {self._table.name} are numbers: pass them.")
        made = uuid4()
        return str(made) if isinstance(self._key, UuidKey) else made.hex

    async def told(self, work: Awaitable[T]) -> T:
        """What work gives.

        Raises:
            SchemaVersionError: Its table is not there; it says what makes one.
        """
        try:
            return await work
        except SchemaVersionError as error:
            if self._model is QortexVector:
                raise
            name = self._table.name
            raise error.retold(
                f"{error} A table of your own is made by a revision of yours: "
                f"`qortex-db collections new {name}` writes a first one, with its model."
            ) from None
