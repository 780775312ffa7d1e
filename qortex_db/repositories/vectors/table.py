"""A table of vectors as its repositories see it: what it holds, and how it is asked."""

from __future__ import annotations

import asyncio
import copy
import functools
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from sqlalchemy import Column, ColumnElement

from qortex_db import checks, types
from qortex_db.engine.executor import NO_SETTINGS
from qortex_db.errors import (
    DimensionMismatchError,
    InvalidInputError,
)
from qortex_db.filters import Filter, Where, check_readable, read_filter, read_path, with_document
from qortex_db.filters.columns import no_column, value_column
from qortex_db.filters.fields import ENCRYPTED
from qortex_db.limits import DEFAULT_LIMITS, Limits
from qortex_db.markers import ALL_NAMESPACES
from qortex_db.mirrors import moved, original_of
from qortex_db.models.changing import Changeover, changing_table
from qortex_db.models.collection import collection_of
from qortex_db.models.vector_spec import DEFAULT_VECTOR
from qortex_db.names import qualified
from qortex_db.observability import Subject
from qortex_db.repositories.vectors import table_facts
from qortex_db.repositories.vectors.following import follow
from qortex_db.repositories.vectors.rows.encrypted_columns import EncryptedColumns
from qortex_db.repositories.vectors.rows.namespaces import scope_of
from qortex_db.repositories.vectors.rows.payload_parts import Body, read_body
from qortex_db.repositories.vectors.rows.records import IdT
from qortex_db.repositories.vectors.rows.row_shape import row_shape
from qortex_db.repositories.vectors.rows.written_columns import written_columns
from qortex_db.repositories.vectors.statements.filter_statements import by_filter
from qortex_db.repositories.vectors.statements.key_statements import by_key
from qortex_db.repositories.vectors.table_facts import TableFacts, look_up
from qortex_db.repositories.vectors.two_models import Known, TwoModels, as_embeddings
from qortex_db.sql import DIALECT
from qortex_db.values.keys import key_columns, key_type
from qortex_db.values.plain_json import is_large

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy import Executable, Select, Table

    from qortex_db.encryption import EncryptionKeys
    from qortex_db.engine import Executor, Fetched
    from qortex_db.repositories.vectors.rows.records import RecordInput, SearchHit
    from qortex_db.repositories.vectors.rows.texts import (
        EmbeddingCache,
        TextEmbedder,
        TextEmbedders,
    )
    from qortex_db.repositories.vectors.statements.filter_statements import Place

T = TypeVar("T")

_OF_CHANGEOVERS: Final = ("changeover", "reembed", "switch_to")
"""The methods that change what the others follow."""
_OVERSAMPLING: Final = {None: 1.0, "half": 2.0, "binary": 20.0}


class TableBound(Generic[IdT]):
    """What reads, writes and searches have in common: the table that they are bound to.

    Args:
        executor: The lane that statements take.
        table: Of a collection.
        namespace: Whose rows it is about; None where the table has none.
        limits: Of what one call may bring.
        encryption_keys: Of what the collection has encrypted.
        texts: What embeds texts; None where nothing does.
        cache: Gives that of embeddings of texts, where there is one.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        follow(cls, without=_OF_CHANGEOVERS)

    def __init__(
        self,
        executor: Executor,
        table: Table,
        *,
        namespace: Any = None,
        limits: Limits = DEFAULT_LIMITS,
        encryption_keys: EncryptionKeys | None = None,
        texts: TextEmbedders | None = None,
        cache: Callable[[], EmbeddingCache] | None = None,
    ) -> None:
        self._cache = cache
        self._subject = Subject(table.name, limits.slow_call_seconds)
        self._vectors = VectorTable(
            executor,
            table,
            namespace=namespace,
            limits=limits,
            encryption_keys=encryption_keys,
            texts=texts,
        )


class VectorTable:
    """One vector of one table, by one executor."""

    def __init__(
        self,
        executor: Executor,
        table: Table,
        name: str = DEFAULT_VECTOR,
        *,
        namespace: Any = None,
        limits: Limits = DEFAULT_LIMITS,
        encryption_keys: EncryptionKeys | None = None,
        texts: TextEmbedders | None = None,
        two_models: TwoModels | None = None,
        is_chosen: bool = False,
    ) -> None:
        self.executor = executor
        self.texts = texts
        self.two_models = two_models
        self.is_chosen = is_chosen
        self.limits = limits
        self.written = written_columns(table, limits)
        self.table = table
        self.name = name
        self.namespace = namespace
        self.vector = collection_of(table).vectors[name]
        self.scope, self.scope_params = scope_of(table, namespace)
        self.shape = row_shape(table)
        self.key = key_type(table)
        self.encryption_keys = encryption_keys
        self.encrypted: EncryptedColumns | None = None
        if ENCRYPTED in table.info:
            self.encrypted = EncryptedColumns(table, encryption_keys)
            self.written = self.encrypted.written(self.written)
        self.by_key = by_key(table, self.scope)
        self.by_filter = by_filter(table, self.scope)

    def even_parts(self, facts: TableFacts) -> int:
        """In how many partitions the rows of a search lie, as chance has it; else 1."""
        if facts.partition_key is None or self.scope.clauses:
            return 1
        quote = DIALECT.identifier_preparer.quote
        key = ", ".join(quote(column.name) for column in key_columns(self.table))
        # By another key a query's neighbours may be in one of them.
        return max(1, facts.partitions) if facts.partition_key == f"HASH ({key})" else 1

    def is_spread(self, facts: TableFacts) -> bool:
        """Whether the rows of this scope lie on several nodes of Citus."""
        own = self.scope.column
        return facts.distributed_by is not None and (
            own is None or own.name != facts.distributed_by
        )

    def check_takes_rows(self) -> None:
        """Refuse new rows of which nobody says whose they are."""
        if self.namespace is ALL_NAMESPACES:
            raise InvalidInputError(
                "ALL_NAMESPACES does not say whose a new row is: write by collection(…, "
                "namespace=…)."
            )

    def using(self, name: str | None) -> VectorTable:
        """Another vector of the same table.

        Raises:
            InvalidInputError: There is none of this name.
        """
        if name is None:
            return self
        names = collection_of(self.table).vectors
        chosen, two = name, self.two_models
        if two is not None and name == two.changeover.current:
            chosen = DEFAULT_VECTOR
        elif two is not None and two.changeover.has_ended and name == two.changeover.other:
            raise two.refusal(f"those of {name} were dropped")
        if not isinstance(chosen, str) or chosen not in names:
            raise InvalidInputError(
                f"{self.table.name} has no vector of that name; it has {', '.join(names)}."
            )
        return self._over(self.table, chosen, two, is_chosen=name != DEFAULT_VECTOR)

    def by(self, executor: Executor) -> VectorTable:
        """The same by another lane."""
        made = copy.copy(self)
        made.executor = executor
        return made

    def during(self, changeover: Changeover) -> VectorTable:
        """The same table with `vec` for what it is searched by in a changeover."""
        two_models = TwoModels.of(self.table.name, changeover, self.texts)
        return self._over(changing_table(self.table, changeover), self.name, two_models)

    def _over(
        self, table: Table, name: str, two_models: TwoModels | None, *, is_chosen: bool = False
    ) -> VectorTable:
        return VectorTable(
            self.executor,
            table,
            name,
            namespace=self.namespace,
            limits=self.limits,
            encryption_keys=self.encryption_keys,
            texts=self.texts,
            two_models=two_models,
            is_chosen=is_chosen,
        )

    @property
    def zero_distance_score(self) -> float:
        """The score at no distance; from there each unit of distance takes one."""
        return 1.0 if self.vector.metric == "cosine" else 0.0

    async def opened(
        self, rows: Sequence[Sequence[Any]], floor: float = -math.inf
    ) -> Sequence[Sequence[Any]]:
        """Rows of hits or of records, with what is encrypted in clear.

        Args:
            floor: Of hits, the least score; the others are left out.
        """
        if self.encrypted is None:
            return rows
        start = self.zero_distance_score
        if floor > -math.inf:
            rows = [row for row in rows if start - row[1] >= floor]
        return await self.encrypted.opened(rows)

    def body(self, with_payload: object) -> Body:
        """What a caller wants of payloads."""
        return read_body(self.table, with_payload, self.shape.own)

    def hits(
        self, rows: Iterable[Sequence[Any]], floor: float = -math.inf, *, body: Body
    ) -> list[SearchHit[Any]]:
        """Rows as hits: a score is 1 - distance by cosine, -distance by every other metric."""
        return self.shape.hits(rows, self.zero_distance_score, floor, body)

    def check_score(self, score: object) -> float:
        """A least score that can be had."""
        if self.vector.metric == "cosine":
            return checks.check_number(score, name="min_score", low=-1, high=1)
        return checks.check_number(score, name="min_score")

    def reach(self, count: int, oversampling: float | None = None) -> int:
        """How many candidates an index has to bring in for so many hits."""
        factor = _OVERSAMPLING[self.vector.quantization]
        if oversampling is not None:
            factor = checks.check_number(oversampling, name="oversampling", low=1, high=100)
        return math.ceil(count * factor) if self.vector.quantization else count

    async def narrow(
        self, where: Where | None, where_document: Mapping[str, Any] | None
    ) -> Filter | None:
        """What a caller says of rows, as one filter; None where he says nothing."""
        whole = with_document(where, where_document)
        if whole is None:
            return None
        if is_large(whole):
            return await asyncio.to_thread(
                read_filter, whole, self.table, self.limits, self.shape.own
            )
        return read_filter(whole, self.table, self.limits, self.shape.own)

    def place(self, path: object, name: str) -> Place:
        """Where values are: a column of the host's by its name or attribute, or a path."""
        element = path.__clause_element__() if hasattr(path, "__clause_element__") else path
        if isinstance(element, ColumnElement):
            column = moved(element, original_of(self.table), self.table)
            if not (isinstance(column, Column) and column.table is self.table):
                raise InvalidInputError(f"{name} is no column of {self.table.name}.")
            return value_column(column, name)
        if isinstance(path, str) and path in self.shape.own:
            return value_column(self.table.c[self.shape.own[path]], name)
        if "payload" not in self.table.c:
            if isinstance(path, str):
                raise no_column(self.table, path, self.shape.own)
            raise InvalidInputError(f"{name} is a {type(path).__name__}; pass a column.")
        steps = read_path(checks.check_text(path, name=name)).steps
        check_readable(self.table, steps[0], name)
        return steps

    async def run(
        self,
        statement: Executable,
        params: Mapping[str, Any],
        settings: Mapping[str, str] = NO_SETTINGS,
    ) -> Fetched:
        """A statement of this scope."""
        if self.scope_params:
            params = {**params, **self.scope_params}
        return await self.executor.run(statement, params, settings=settings)

    async def run_all(
        self, statement: Executable, params: Iterable[Mapping[str, Any]]
    ) -> Sequence[Any]:
        """One statement with several sets of parameters, all or none; the rows of all."""
        if self.scope_params:
            params = ({**each, **self.scope_params} for each in params)
        return await self.executor.run_all(statement, params)

    async def rows(
        self,
        statement: Select[Any],
        params: Mapping[str, Any],
        settings: Mapping[str, str] = NO_SETTINGS,
    ) -> Sequence[Any]:
        """The rows of a statement of this scope."""
        return (await self.run(statement, params, settings)).rows

    async def facts(self, *, anew: bool = False) -> TableFacts:
        """What is known of the table, looked up once for each engine.

        Args:
            anew: Look again.

        Raises:
            SchemaVersionError: There is no such table.
        """
        known = self.executor.known()
        if known is None:
            known = await self.executor.catalog()
        key = self._key
        found = known.get(key)
        if found is not None and not anew:
            if time.monotonic() < found[1]:
                return found[0]  # type: ignore[no-any-return]
            known[key] = (
                found[0],
                time.monotonic() + table_facts.CHANGEOVER_SECONDS,
            )  # others go on by it
        facts = await look_up(
            self.executor,
            self.table,
            self._column,
            declared=self.vector.dimensions,
            in_changeover=self.two_models is not None,
            follows=self.name == DEFAULT_VECTOR and self.two_models is None,
        )
        if found is not None and facts.says_the_same(found[0]):
            facts = found[0]
        changes = facts.changeover is not None and not facts.changeover.has_ended
        seconds = table_facts.CHANGEOVER_SECONDS if changes else table_facts.FACTS_SECONDS
        known[key] = facts, time.monotonic() + seconds
        return facts

    def known_facts(self) -> TableFacts | None:
        """What is known of the table, where nothing has to be asked for it."""
        found = (self.executor.known() or {}).get(self._key)
        return None if found is None else found[0]

    def forget_facts(self) -> None:
        """Look the table up again before the next call."""
        (self.executor.known() or {}).pop(self._key, None)

    @property
    def _key(self) -> tuple[object, ...]:
        follows = self.two_models is None  # what is known during a changeover says nothing of it
        return TableFacts, self.qualified_name, self._column, self.vector.dimensions, follows

    @functools.cached_property
    def _column(self) -> str:
        return self.table.c[self.vector.column].name

    async def renewed(self, facts: TableFacts, refusal: DimensionMismatchError) -> TableFacts:
        """What is true by now of a table by whose facts something was refused.

        A migration may have changed it since, and a search_path may lead each tenant of a host to
        a table of its own.

        Raises:
            DimensionMismatchError: The refusal, if it is the same.
        """
        anew = await self.facts(anew=True)
        if anew.dimensions == facts.dimensions:
            raise refusal
        return anew

    async def by_facts(self, check: Callable[[TableFacts], T]) -> T:
        """What a check by the facts gives; before it refuses dimensions, it looks them up anew."""
        facts = await self.facts()
        try:
            return check(facts)
        except DimensionMismatchError as refusal:
            facts = await self.renewed(facts, refusal)
        return check(facts)

    async def embedded(self, queries: Sequence[object]) -> list[Any]:
        """Queries with an embedding in the place of each text.

        Raises:
            InvalidInputError: Nothing embeds texts for this vector.
        """
        texts = [query for query in queries if isinstance(query, str)]
        if not texts:
            return [Known(self.named(query)) for query in queries]
        made = iter(as_embeddings(await self._embedder().queries(texts)))
        return [
            next(made) if isinstance(query, str) else Known(self.named(query)) for query in queries
        ]

    def _embedder(self) -> TextEmbedder:
        """What embeds texts for this vector."""
        two = self.two_models
        if two is not None:
            found = two.embedders.get(two.of_vector(self.name))
            if found is not None:
                return found
            if two.labels:
                raise two.refusal("nothing here embeds a text by it")
        found = self._embedders.get(self.name)
        if found is None:
            why = "it has no embedder" if self.texts is None else "its embedder is not for this one"
            raise InvalidInputError(
                f"embedding is a str; pass {self.table.name} a vector, for {why}: "
                "collection(…, embedder=…)."
            )
        return found

    @functools.cached_property
    def _embedders(self) -> dict[str, TextEmbedder]:
        """What embeds texts, by the vectors of the table."""
        if self.texts is None:
            return {}
        vectors, two = collection_of(self.table).vectors, self.two_models
        others = set() if two is None else {two.changeover.current, two.changeover.other}
        further = vectors.keys() - others - {DEFAULT_VECTOR}
        by_name = self.texts.by_name
        found = {name: one for name, one in by_name.items() if name in further}
        of_none = [name for name in by_name if name not in further]
        if of_none:
            name = DEFAULT_VECTOR if DEFAULT_VECTOR in of_none else of_none[0]
            found[DEFAULT_VECTOR] = by_name[name]
        return found

    async def prepared(self, records: list[RecordInput], first_row: int = 0) -> list[RecordInput]:
        """Records with the embeddings of their documents, where they bring none."""
        embedders = dict(self._embedders)
        if self.two_models is not None:
            records = await self.two_models.records(records, self.limits, first_row)
            embedders.pop(DEFAULT_VECTOR, None)
        for vector, embedder in embedders.items():
            records = await embedder.records(records, self.limits, first_row, vector)
        return records

    async def encode_query(self, embedding: object) -> Any:
        """One query's embedding, checked."""
        (embedding,) = await self.embedded([embedding])
        return await self.by_facts(lambda facts: self._encode_query(embedding, facts))

    @functools.cached_property
    def qualified_name(self) -> str:
        """As `to_regclass` takes it."""
        return qualified(self.executor.schema_of(self.table.schema), self.table.name)

    def encode(self, embedding: object, facts: TableFacts, name: str = "embedding") -> Any:
        """A query's embedding, checked."""
        return self.encode_for(self.named(embedding), facts.dimensions, name)

    def named(self, embedding: object) -> Any:
        """An embedding that is this vector's: of several models' the one that it is called by."""
        if self.two_models is not None:
            return self.two_models.named(embedding, self.name, is_chosen=self.is_chosen)
        if type(embedding) is Known:
            return embedding.embedding
        if type(embedding) is dict and self.name == DEFAULT_VECTOR and embedding:
            name, first = next(iter(embedding.items()))
            return first if isinstance(name, str) else embedding
        return embedding

    def encode_for(self, embedding: object, dimensions: int | None, name: str = "embedding") -> Any:
        """The same for a column of so many dimensions."""
        sparse, allow_zero, is_half = self._query_form
        if sparse is not None:
            return sparse.to_text(embedding, name=name, allow_zero=allow_zero)
        return types.checked(
            embedding,
            dimensions=dimensions,
            allow_zero=allow_zero,
            is_half=is_half,
            name=name,
        )

    @functools.cached_property
    def _query_form(self) -> tuple[types.SparseEmbedding | None, bool, bool]:
        """What a query is encoded by: a sparse type, whether it may be zero, half precision."""
        kind = self.vector.type
        sparse = kind if isinstance(kind, types.SparseEmbedding) else None
        return sparse, self.vector.metric != "cosine", self.vector.is_half

    def read_query(self, embedding: object) -> NDArray[np.float32] | types.SparseVector:
        """A query's embedding that was checked, as a hit has its own."""
        if type(embedding) is Known:
            embedding = embedding.embedding
        if isinstance(self.vector.type, types.SparseEmbedding):
            return self.vector.type.read(embedding)
        return types.as_float32(embedding)

    def _encode_query(self, embedding: object, facts: TableFacts) -> Any:
        try:
            return self.encode(embedding, facts)
        except InvalidInputError as error:
            embedding = embedding.embedding if type(embedding) is Known else embedding
            several = isinstance(embedding, Sequence) and any(
                hasattr(one, "__len__") and not isinstance(one, str) for one in embedding
            )
            dimensions = checks.as_whole(getattr(embedding, "ndim", 1))
            if several or (dimensions or 1) > 1:
                hint = "For several queries there are search_many (an answer to each), multi_search"
                raise error.retold(f"{error} {hint} (one answer to all).") from None
            raise
