"""A table's change from one model of embeddings to another: filled, switched, and looked at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final, cast

from qortex_db.checks import check_flag, check_text
from qortex_db.embedders import Embedder
from qortex_db.engine import on_primary
from qortex_db.errors import (
    ConflictError,
    EmbeddingModelError,
    InvalidInputError,
    SerializationConflictError,
)
from qortex_db.filters import values_of
from qortex_db.messages import shown
from qortex_db.models.vector_spec import DEFAULT_VECTOR
from qortex_db.names import qualified
from qortex_db.repositories import validation
from qortex_db.repositories.chunks import refuse_in_transaction
from qortex_db.repositories.progress import Pace, tell
from qortex_db.repositories.vectors import table_facts
from qortex_db.repositories.vectors.rows.records import IdT, VectorRecord
from qortex_db.repositories.vectors.rows.texts import TextEmbedder
from qortex_db.repositories.vectors.statements.changeover_rows import (
    CHANGEOVERS,
    close,
    fill_statements,
    name_model,
    switch,
)
from qortex_db.repositories.vectors.statements.key_statements import IDS, VECS
from qortex_db.repositories.vectors.writes import VectorWrites
from qortex_db.types import checked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qortex_db.filters import Filter, Where
    from qortex_db.models.changing import Changeover
    from qortex_db.repositories.progress import IngestProgress
    from qortex_db.repositories.vectors.statements.changeover_rows import FillStatements
    from qortex_db.repositories.vectors.table import VectorTable

MAX_REEMBEDDED: Final = 10_000
"""The most rows of one batch of `reembed`."""
EMBEDDED_AT_ONCE: Final = 200
"""Rows of one by default."""
_MAX_TRIES: Final = 100


@dataclass(frozen=True, slots=True)
class ModelChange:
    """A table that has the embeddings of two models.

    Attributes:
        current: What those are called that searches use.
        other: What the others are called.
        model: The embedder of the new ones, once they are filled by one.
        missing: How many rows lack the others, and have the current ones.
        without_document: How many of those have no document to embed.
        began_at: When the new ones' column was added, in ISO 8601, UTC.
        switched_at: When searches were last switched, likewise; "" if never.
    """

    current: str
    other: str
    model: str | None
    missing: int
    without_document: int
    began_at: str
    switched_at: str


class VectorModelChanges(VectorWrites[IdT]):
    """What fills the embeddings of another model, and has searches use them."""

    async def changeover(self) -> ModelChange | None:
        """How far the table's change to another model is; None where it has those of one alone.

        In a namespace it counts the rows of that.
        """
        found = (await self._vectors.facts(anew=True)).changeover
        if found is None or found.has_ended:
            return None
        vectors = self._vectors.during(found)
        _, began, switched, _, missing, fillable = await _state(vectors, found)
        return ModelChange(
            current=found.current,
            other=found.other,
            model=found.model,
            missing=missing,
            without_document=missing - fillable,
            began_at=began.astimezone(UTC).isoformat(),
            switched_at="" if switched is None else switched.astimezone(UTC).isoformat(),
        )

    async def reembed(
        self,
        embedder: object = None,
        *,
        into: str,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
        on_progress: Callable[[IngestProgress], object] | None = None,
    ) -> int:
        """Embed the documents of rows that lack one of two models' embeddings, and fill only those.

        By itself each batch is its own transaction, so it can be stopped, and run again, and goes
        on with what is left: what is filled is not embedded again. What others change meanwhile is
        done again, until less than a batch is left, which is done too. `updated_at` stays.

        What is not described here is as of :meth:`search`.

        Args:
            embedder: A model, as of `collection`; by default the collection's own of this name.
            into: Which of the two embeddings, as the changeover calls them.
            batch_size: Rows that are read, embedded and written at a time, 1 to 10,000; None for
                200. Refused in a unit of work, where all are one transaction.
            on_progress: As of :meth:`ingest`, with the rows filled so far.

        Returns:
            How many rows were filled; those without a document are left.

        Raises:
            InvalidInputError: The table has no embeddings of this name.
            ConflictError: Others change the same rows without end.
            EmbeddingModelError: What is there was made by another model.
        """
        size = EMBEDDED_AT_ONCE
        if batch_size is not None:
            size = validation.check_limit(batch_size, MAX_REEMBEDDED, name="batch_size")
            refuse_in_transaction(self._vectors.executor)
        if on_progress is not None:
            validation.check_callable(on_progress, name="on_progress")
        found = await self._found(into)
        vectors = self._vectors.during(found)
        if "document" not in vectors.table.c:
            raise InvalidInputError(
                f"{vectors.table.name} has no documents to embed: write the embeddings by "
                f"update_many([{{'id': …, 'vectors': {{{into!r}: …}}}}])."
            )
        texts = self._texts_for(vectors, embedder, into)
        if into == found.new_name:
            await self._name(vectors, texts.embedder.label)
        narrowed = await vectors.narrow(where, where_document)
        fill = _Fill(vectors, found, into, texts, on_progress)
        idle = 0
        while idle < _MAX_TRIES:
            before = fill.done
            read = await fill.round(narrowed, size)
            written = fill.done - before
            if written == read < size:  # else once more, for what was changed meanwhile
                return fill.done
            idle = 0 if written else idle + 1
        raise ConflictError(
            "Others change the same rows again and again. Run it again: what is done is left alone."
        )

    async def switch_to(self, name: str, *, closing: bool = False) -> None:
        """Have every process search by the other of two models' embeddings, and back: at once.

        It is one statement, which waits for the writers that have begun, and is refused while a row
        lacks the embedding. What is searched meanwhile finds the same by either.

        Args:
            name: What the embeddings are called.
            closing: Where rows lack the new ones, refuse writes without them from now on: those of
                the old version, which may bring in rows faster than they are filled.

        Raises:
            InvalidInputError: The table has no embeddings of this name, or `closing` is no bool.
            ConflictError: Rows lack them, or not every process can know of them yet; nothing was
                switched.
            LockTimeoutError: A writer took too long; try again.
        """
        check_flag(closing, name="closing")
        found = await self._found(name)
        if found.current == name:
            return
        vectors = self._vectors.during(found)
        table, _, _, age, missing, fillable = await _state(vectors, found)
        closing = closing and name == found.new_name
        if missing:
            if closing:
                await vectors.executor.run(close(), {"relation": vectors.qualified_name})
            refused = " Writes without it are refused from now on." if closing else ""
            raise ConflictError(
                f"{missing:,} rows of {vectors.table.name} have no {name} ({missing - fillable:,} "
                f"of them no document either): reembed(into={name!r}) first.{refused}"
            )
        wait = table_facts.FACTS_SECONDS + table_facts.CHANGEOVER_SECONDS - age
        if wait > 0:
            raise ConflictError(
                f"The column {found.new_name} was added just now, and a process may take "
                f"{table_facts.FACTS_SECONDS:g} s to see that: switch in {wait:.1f} s."
            )
        executor = vectors.executor
        own = qualified(executor.schema_of(CHANGEOVERS.schema), CHANGEOVERS.name)
        await executor.run(switch(vectors.qualified_name, own, table, found), {})
        await self._vectors.facts(anew=True)

    async def _found(self, name: str) -> Changeover:
        """The table's changeover, which has embeddings of this name."""
        check_text(name, name="name")
        found = (await self._vectors.facts(anew=True)).changeover
        if found is None or found.has_ended:
            raise InvalidInputError(
                f"{self._vectors.table.name} has the embeddings of one model alone: a revision "
                "adds the others, by op.add_embedding_column(…), or `qortex-db model add`."
            )
        if name not in {found.old_name, found.new_name}:
            raise InvalidInputError(
                f"{self._vectors.table.name} has no embeddings called {shown(name)}; it has "
                f"{found.old_name} and {found.new_name}."
            )
        return found

    def _texts_for(self, vectors: VectorTable, embedder: object, into: str) -> TextEmbedder:
        """What embeds, through the cache."""
        two = vectors.two_models
        if embedder is None:
            own = None if two is None else two.embedders.get(into)
            if own is None and vectors.texts is not None:
                own = vectors.texts.by_name.get(into)
            if own is None:
                raise InvalidInputError(f"Nothing here embeds {into}: pass an embedder.")
            return own
        if self._cache is None:
            raise InvalidInputError("There is no cache here: get the collection of a Database.")
        return TextEmbedder(Embedder.of(embedder), self._cache())

    async def _name(self, vectors: VectorTable, label: str) -> None:
        params = {"relation": vectors.qualified_name, "model_label": label}
        if (await vectors.executor.run(name_model(), params)).rowcount:
            await self._vectors.facts(anew=True)
            return
        model = (await self._vectors.facts(anew=True)).changeover
        has = None if model is None else model.model
        raise EmbeddingModelError(
            f"The new embeddings of {vectors.table.name} are of {has}, and this embedder is "
            f"{label}: one column holds those of one model.",
        )


class _Fill:
    """Batches of rows that are filled.

    Attributes:
        done: How many rows were.
    """

    def __init__(
        self,
        vectors: VectorTable,
        changeover: Changeover,
        into: str,
        texts: TextEmbedder,
        on_progress: Callable[[IngestProgress], object] | None,
    ) -> None:
        self.done = 0
        self._pace = Pace()
        self._on_progress = on_progress
        self._vectors = vectors
        self._texts = texts
        wanted = DEFAULT_VECTOR if into == changeover.current else into
        self._spec = vectors.using(into).vector
        self.statements = _statements(vectors, changeover, wanted)

    async def round(self, narrowed: Filter | None, size: int) -> int:
        """Go through all rows that lack the embedding; return how many there were."""
        vectors = self._vectors
        read, after = 0, vectors.key.least
        while True:
            page = self.statements.page(narrowed, after is not None)
            params = {"after": after, "hits": size, **values_of(narrowed)}
            rows = (await vectors.run(on_primary(page), params)).rows
            if rows:
                read += len(rows)
                self.done += await self._write(await self._opened(rows))
                await tell(self._on_progress, self._pace.progress(self.done))
            if len(rows) < size:
                return read
            after = rows[-1][0]

    async def _opened(self, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, str, str]]:
        """Keys and documents, as they are stored and in clear."""
        clear: Sequence[Sequence[Any]] = [(key, None, None, document) for key, document in rows]
        if self._vectors.encrypted is not None:
            clear = await self._vectors.encrypted.opened(clear)
        return [(key, said, row[3]) for (key, said), row in zip(rows, clear, strict=True)]

    async def _write(self, rows: list[tuple[Any, str, str]]) -> int:
        """Embed some rows, and fill those that are still as they were read."""
        records = [VectorRecord(str(key), document=clear) for key, _, clear in rows]
        made = await self._texts.records(records, self._vectors.limits)
        spec = self._spec
        encoded = [
            checked(
                cast("VectorRecord", record).embedding,
                dimensions=spec.dimensions,
                allow_zero=spec.metric != "cosine",
                is_half=spec.is_half,
                name=f"the embedding of {shown(cast('VectorRecord', record).id)}",
            )
            for record in made
        ]
        params = {
            IDS: [key for key, _, _ in rows],
            VECS: encoded,
            "row_values_0": [stored for _, stored, _ in rows],
        }
        for _ in range(_MAX_TRIES):
            try:
                return (await self._vectors.run(self.statements.fill, params)).rowcount
            except SerializationConflictError as error:  # with another writer, in whatever order
                refused = error
        raise refused


def _statements(vectors: VectorTable, changeover: Changeover, wanted: str) -> FillStatements:
    return fill_statements(vectors.table, vectors.scope, changeover, wanted)


async def _state(vectors: VectorTable, changeover: Changeover) -> Sequence[Any]:
    """The row's name and times, its age in seconds, and how many rows lack the other embedding."""
    statements = _statements(vectors, changeover, changeover.other)
    params = {"relation": vectors.qualified_name}
    found: Sequence[Any] = (await vectors.run(on_primary(statements.missing), params)).rows[0]
    return found
