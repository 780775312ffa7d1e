# Written by docs/generate_sync.py from the async classes' methods.

from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import URL, ColumnElement
from sqlalchemy.orm import Session

from qortex_db import database
from qortex_db.encryption import EncryptionKeys
from qortex_db.engine import Consistency, SettingValue
from qortex_db.filters import Where
from qortex_db.learning import Arm, ArmState, Policy, Posterior, Selection
from qortex_db.limits import Complete
from qortex_db.markers import Clear
from qortex_db.models import Collection
from qortex_db.repositories.arms.arguments import AllContexts, ArmStateLike
from qortex_db.repositories.arms.reads import LearnerMetrics
from qortex_db.repositories.embedding_cache.repository import CacheStats, EmbeddingModel
from qortex_db.repositories.interoception.edge_records import (
    EdgeStats,
    EdgeStatsLike,
    EdgeSummary,
    Promotion,
)
from qortex_db.repositories.interoception.factors import FactorChanges, FactorSummary
from qortex_db.repositories.progress import IngestProgress
from qortex_db.repositories.vectors.aggregates import Aggregate
from qortex_db.repositories.vectors.changes import Inserted
from qortex_db.repositories.vectors.index_advice import IndexAdvice, RecallProbe, Tuning
from qortex_db.repositories.vectors.ingest import OnError, Rejects
from qortex_db.repositories.vectors.model_changes import ModelChange
from qortex_db.repositories.vectors.rows.frames import Frame
from qortex_db.repositories.vectors.rows.payload_parts import WithPayload
from qortex_db.repositories.vectors.rows.records import (
    EmbeddingBatch,
    FacetCount,
    IdInput,
    IdT,
    PathInput,
    RecordInput,
    ScrollPage,
    SearchGroups,
    SearchHit,
    SearchHits,
    VectorRecord,
)
from qortex_db.repositories.vectors.search.boosts import Boost
from qortex_db.repositories.vectors.search.examples import Strategy
from qortex_db.repositories.vectors.search.explain import SearchPlan
from qortex_db.repositories.vectors.search.fused import Rank
from qortex_db.repositories.vectors.search.hybrid import SparseInput
from qortex_db.repositories.vectors.search.hybrid_statements import FusedBy
from qortex_db.repositories.vectors.search.index_settings import IterativeScan
from qortex_db.repositories.vectors.search.text_queries import BM25, TextMatch, TextRank
from qortex_db.repositories.vectors.statements.aggregate_statements import AggregateName
from qortex_db.repositories.vectors.word_counts import WordStatistics
from qortex_db.settings import Settings
from qortex_db.status import Status
from qortex_db.types import EmbeddingInput
from qortex_db.view import IsolationLevel

__all__ = ["Database"]

T = TypeVar("T")

class ArmRepository:
    def put(
        self,
        learner: str,
        arm_id: str,
        state: ArmStateLike,
        *,
        context: Mapping[str, Any] | None = ...,
    ) -> None: ...
    def observe(
        self,
        learner: str,
        arm_id: str,
        *,
        reward: float,
        context: Mapping[str, Any] | None = ...,
        idempotency_key: str | None = ...,
    ) -> ArmState: ...
    def observe_many(
        self,
        learner: str,
        observations: Iterable[tuple[str, float]],
        *,
        context: Mapping[str, Any] | None = ...,
        idempotency_key: str | None = ...,
    ) -> dict[str, ArmState]: ...
    def apply_deltas(
        self,
        learner: str,
        deltas: Mapping[str, tuple[float, float]],
        *,
        context: Mapping[str, Any] | None = ...,
        idempotency_key: str | None = ...,
    ) -> dict[str, ArmState]: ...
    @overload
    def decay(
        self,
        learner: str,
        arm_id: str | None = ...,
        *,
        factor: float = ...,
        half_life: float | timedelta | None = ...,
        context: Mapping[str, Any] | None = ...,
        batch_size: None = ...,
        resume: None = ...,
        on_progress: None = ...,
    ) -> dict[str, ArmState]: ...
    @overload
    def decay(
        self,
        learner: str,
        arm_id: str | None = ...,
        *,
        factor: float = ...,
        half_life: float | timedelta | None = ...,
        context: AllContexts,
        batch_size: None = ...,
        resume: None = ...,
        on_progress: None = ...,
    ) -> dict[str, dict[str, ArmState]]: ...
    @overload
    def decay(
        self,
        learner: str,
        arm_id: None = ...,
        *,
        factor: float = ...,
        half_life: float | timedelta | None = ...,
        context: Mapping[str, Any] | AllContexts | None = ...,
        batch_size: int,
        resume: str,
        on_progress: Callable[[IngestProgress], object] | None = ...,
    ) -> int: ...
    def seed(
        self,
        learner: str,
        arm_ids: Iterable[str],
        *,
        boost: float = ...,
        unpulled: bool = ...,
        context: Mapping[str, Any] | None = ...,
    ) -> dict[str, ArmState]: ...
    def reset(
        self,
        learner: str,
        arm_ids: Iterable[str] | None = ...,
        *,
        context: Mapping[str, Any] | AllContexts | None = ...,
    ) -> int: ...
    def delete(
        self,
        learner: str,
        arm_ids: Iterable[str] | None = ...,
        *,
        context: Mapping[str, Any] | AllContexts | None = ...,
    ) -> int: ...
    def select(
        self,
        learner: str,
        candidates: Sequence[Arm | str],
        *,
        k: int = ...,
        context: Mapping[str, Any] | None = ...,
        token_budget: int = ...,
        baseline_rate: float = ...,
        min_pulls: int = ...,
        policy: Policy | None = ...,
        rng: np.random.Generator | None = ...,
    ) -> Selection: ...
    def get(
        self, learner: str, arm_id: str, *, context: Mapping[str, Any] | None = ...
    ) -> ArmState: ...
    def get_all(
        self,
        learner: str,
        arm_ids: Iterable[str] | None = ...,
        *,
        context: Mapping[str, Any] | None = ...,
    ) -> dict[str, ArmState]: ...
    def get_all_states(self, learner: str) -> dict[str, dict[str, ArmState]]: ...
    def top(
        self, learner: str, *, k: int = ..., context: Mapping[str, Any] | None = ...
    ) -> list[tuple[str, ArmState]]: ...
    def posteriors(
        self,
        learner: str,
        arm_ids: Iterable[str] | None = ...,
        *,
        context: Mapping[str, Any] | None = ...,
        level: float = ...,
    ) -> dict[str, Posterior]: ...
    def metrics(self, learner: str) -> LearnerMetrics: ...
    def contexts(self, learner: str) -> list[str]: ...
    def read_contexts(self, learner: str) -> dict[str, dict[str, Any] | None]: ...
    def rebuild(
        self, learner: str, *, until: datetime | str | None = ...
    ) -> dict[str, dict[str, ArmState]]: ...

class EdgeRepository:
    def load(self) -> dict[tuple[str, str], EdgeStats]: ...
    def get(self, src: str, tgt: str) -> EdgeStats: ...
    def save(
        self, edges: Mapping[tuple[str, str], EdgeStatsLike], *, max_scores: int = ...
    ) -> None: ...
    def record(
        self,
        src: str,
        tgt: str,
        *,
        score: float,
        max_scores: int = ...,
        idempotency_key: str | None = ...,
    ) -> EdgeStats: ...
    def record_many(
        self,
        observations: Iterable[tuple[str, str, float]],
        *,
        max_scores: int = ...,
        idempotency_key: str | None = ...,
    ) -> int: ...
    def remove(self, keys: Iterable[tuple[str, str]]) -> int: ...
    def promote(
        self, *, min_hits: int = ..., min_avg_score: float = ..., limit: int | None = ...
    ) -> list[Promotion]: ...
    def summary(self, *, min_hits: int = ..., min_avg_score: float = ...) -> EdgeSummary: ...

class EmbeddingRepository:
    def embed(
        self,
        texts: Iterable[str],
        *,
        model: EmbeddingModel,
        name: str | None = ...,
        revision: str = ...,
        dimensions: int | None = ...,
        batch_size: int = ...,
        max_rows: int = ...,
    ) -> NDArray[np.float32]: ...
    def clear(self, name: str | None = ...) -> int: ...
    def stats(self) -> CacheStats: ...

class FactorRepository:
    def load(self) -> dict[str, float]: ...
    def get(self, node_ids: Iterable[str]) -> dict[str, float]: ...
    def save(self, weights: Mapping[str, float]) -> None: ...
    def adjust(
        self,
        outcomes: Mapping[str, str],
        *,
        half_life: float | timedelta | None = ...,
        idempotency_key: str | None = ...,
    ) -> dict[str, float]: ...
    def decay(
        self,
        *,
        half_life: float | timedelta,
        node_ids: Iterable[str] | None = ...,
        batch_size: int | None = ...,
        on_progress: Callable[[IngestProgress], object] | None = ...,
    ) -> int: ...
    def changes(self, since: str | None = ...) -> FactorChanges: ...
    def weight_seeds(self, seed_ids: Iterable[str]) -> dict[str, float]: ...
    def delete(self, node_ids: Iterable[str]) -> int: ...
    def summary(self) -> FactorSummary: ...

class IdempotencyRepository:
    def claim(self, key: str) -> bool: ...
    def prune(self, *, older_than: float | timedelta = ...) -> int: ...

class VectorRepository(Generic[IdT]):
    def dimensions(self) -> int | None: ...
    def recall_probe(
        self,
        *,
        sample: int = ...,
        limit: int = ...,
        ef_search: int | None = ...,
        max_seconds: float = ...,
    ) -> RecallProbe: ...
    def tune(
        self,
        *,
        target_recall: float = ...,
        sample: int = ...,
        limit: int = ...,
        max_ef_search: int = ...,
        max_seconds: float = ...,
    ) -> Tuning: ...
    def recommend_index(
        self, *, rows: int | None = ..., memory_bytes: int | None = ...
    ) -> IndexAdvice: ...
    def clause(
        self, where: Where | None = ..., *, where_document: Mapping[str, Any] | None = ...
    ) -> ColumnElement[bool]: ...
    def distance(
        self, embedding: EmbeddingInput, *, using: str | None = ..., approximate: bool = ...
    ) -> ColumnElement[float]: ...
    def score(
        self, embedding: EmbeddingInput, *, using: str | None = ..., approximate: bool = ...
    ) -> ColumnElement[float]: ...
    def ingest(
        self,
        records: Iterable[RecordInput] | AsyncIterable[RecordInput] | Frame,
        *,
        id: str | None = ...,
        embedding: str | None = ...,
        document: str | None = ...,
        batch_size: int = ...,
        on_progress: Callable[[IngestProgress], object] | None = ...,
        on_error: OnError = ...,
        rejects: Rejects | None = ...,
    ) -> int: ...
    def fill_words(
        self, *, batch_size: int = ..., on_progress: Callable[[int], object] | None = ...
    ) -> int: ...
    def insert(self, records: Iterable[RecordInput]) -> Inserted[IdT]: ...
    def update_many(self, records: Iterable[RecordInput]) -> int: ...
    def merge_payload(
        self,
        values: Mapping[str, Any] | None = ...,
        *,
        remove: Sequence[str] = ...,
        ids: Iterable[IdInput] | None = ...,
        where: Where | None = ...,
        where_document: Mapping[str, Any] | None = ...,
        batch_size: int | None = ...,
        resume: str | None = ...,
        on_progress: Callable[[IngestProgress], object] | None = ...,
    ) -> int: ...
    def delete_where(
        self,
        where: Where | None = ...,
        *,
        where_document: Mapping[str, Any] | None = ...,
        batch_size: int | None = ...,
        resume: str | None = ...,
        on_progress: Callable[[IngestProgress], object] | None = ...,
    ) -> int: ...
    def delete_all(
        self,
        *,
        batch_size: int | None = ...,
        resume: str | None = ...,
        on_progress: Callable[[IngestProgress], object] | None = ...,
    ) -> int: ...
    def get(
        self, ids: Iterable[IdInput], *, with_payload: WithPayload = ...
    ) -> dict[IdT, VectorRecord[IdT]]: ...
    def facet(
        self,
        path: PathInput,
        *,
        where: Where | None = ...,
        where_document: Mapping[str, Any] | None = ...,
        limit: int = ...,
    ) -> list[FacetCount]: ...
    def count(
        self, *, where: Where | None = ..., where_document: Mapping[str, Any] | None = ...
    ) -> int: ...
    def scroll(
        self,
        *,
        limit: int = ...,
        after: str | None = ...,
        order_by: PathInput | None = ...,
        descending: bool = ...,
        where: Where | None = ...,
        where_document: Mapping[str, Any] | None = ...,
        with_payload: WithPayload = ...,
        with_embedding: bool = ...,
    ) -> ScrollPage[IdT]: ...
    def stream(
        self,
        *,
        batch_size: int = ...,
        where: Where | None = ...,
        where_document: Mapping[str, Any] | None = ...,
        with_payload: WithPayload = ...,
        with_embedding: bool = ...,
    ) -> Iterator[VectorRecord[IdT]]: ...
    def stream_batches(
        self,
        *,
        batch_size: int = ...,
        where: Where | None = ...,
        where_document: Mapping[str, Any] | None = ...,
        using: str | None = ...,
    ) -> Iterator[EmbeddingBatch[IdT]]: ...
    def aggregate(
        self,
        paths: Mapping[str, Sequence[AggregateName]] | Mapping[PathInput, Sequence[AggregateName]],
        *,
        group_by: PathInput | None = ...,
        where: Where | None = ...,
        where_document: Mapping[str, Any] | None = ...,
        limit: int = ...,
    ) -> list[Aggregate]: ...
    def rotate_keys(
        self, *, batch_size: int = ..., on_progress: Callable[[int], object] | None = ...
    ) -> int: ...
    def changeover(self) -> ModelChange | None: ...
    def reembed(
        self,
        embedder: object = ...,
        *,
        into: str,
        where: Where | None = ...,
        where_document: Mapping[str, Any] | None = ...,
        batch_size: int | None = ...,
        on_progress: Callable[[IngestProgress], object] | None = ...,
    ) -> int: ...
    def switch_to(self, name: str, *, closing: bool = ...) -> None: ...
    def upsert(self, records: Iterable[RecordInput]) -> int: ...
    def upsert_with_zeros(self, records: Iterable[RecordInput]) -> int: ...
    def update(
        self,
        id: IdInput,
        *,
        embedding: EmbeddingInput | Clear | None = ...,
        payload: Mapping[str, Any] | None = ...,
        document: str | Clear | None = ...,
        vectors: Mapping[str, Any] | None = ...,
        attributes: Mapping[str, Any] | None = ...,
    ) -> bool: ...
    def delete(self, ids: Iterable[IdInput]) -> int: ...
    def search(
        self,
        embedding: EmbeddingInput | str,
        *,
        limit: int = ...,
        offset: int = ...,
        where: Where | None = ...,
        where_document: Mapping[str, Any] | None = ...,
        min_score: float | None = ...,
        ef_search: int | None = ...,
        probes: int | None = ...,
        iterative_scan: IterativeScan | None = ...,
        oversampling: float | None = ...,
        complete: Complete | None = ...,
        using: str | None = ...,
        exact: bool = ...,
        boost: Boost | Sequence[Boost] | None = ...,
        fetch_limit: int | None = ...,
        with_payload: WithPayload = ...,
        with_embedding: bool = ...,
    ) -> SearchHits[IdT]: ...
    def explain(
        self,
        embedding: EmbeddingInput | str,
        *,
        limit: int = ...,
        where: Where | None = ...,
        where_document: Mapping[str, Any] | None = ...,
        ef_search: int | None = ...,
        probes: int | None = ...,
        iterative_scan: IterativeScan | None = ...,
        oversampling: float | None = ...,
        complete: Complete | None = ...,
        using: str | None = ...,
        exact: bool = ...,
    ) -> SearchPlan: ...
    def range_search(
        self,
        embedding: EmbeddingInput | str,
        *,
        min_score: float,
        limit: int | None = ...,
        offset: int = ...,
        where: Where | None = ...,
        where_document: Mapping[str, Any] | None = ...,
        using: str | None = ...,
        with_payload: WithPayload = ...,
        with_embedding: bool = ...,
    ) -> SearchHits[IdT]: ...
    def mmr_search(
        self,
        embedding: EmbeddingInput | str,
        *,
        limit: int = ...,
        fetch_limit: int = ...,
        lambda_: float = ...,
        where: Where | None = ...,
        where_document: Mapping[str, Any] | None = ...,
        complete: Complete | None = ...,
        using: str | None = ...,
        exact: bool = ...,
        with_payload: WithPayload = ...,
        with_embedding: bool = ...,
    ) -> SearchHits[IdT]: ...
    def search_groups(
        self,
        embedding: EmbeddingInput | str,
        group_by: PathInput,
        *,
        limit: int = ...,
        group_size: int = ...,
        fetch_limit: int | None = ...,
        where: Where | None = ...,
        where_document: Mapping[str, Any] | None = ...,
        complete: Complete | None = ...,
        using: str | None = ...,
        exact: bool = ...,
        with_payload: WithPayload = ...,
        with_embedding: bool = ...,
    ) -> SearchGroups[IdT]: ...
    def hybrid_search(
        self,
        embedding: EmbeddingInput | str | Sequence[EmbeddingInput | str] | None,
        text: str | None = ...,
        *,
        sparse: SparseInput | None = ...,
        limit: int = ...,
        offset: int = ...,
        where: Where | None = ...,
        where_document: Mapping[str, Any] | None = ...,
        alpha: float | None = ...,
        weights: Mapping[str, float] | None = ...,
        fusion: FusedBy | None = ...,
        k: int = ...,
        min_score: float | None = ...,
        branch_limit: int | Mapping[str, int] | None = ...,
        branch_where: Mapping[str, Where] | None = ...,
        using: str | Sequence[str] | None = ...,
        sparse_using: str | None = ...,
        match: TextMatch = ...,
        rank: TextRank | BM25 | None = ...,
        complete: Complete | None = ...,
        exact: bool = ...,
        with_payload: WithPayload = ...,
        with_embedding: bool = ...,
    ) -> SearchHits[IdT]: ...
    def multi_search(
        self,
        embeddings: Sequence[EmbeddingInput | str],
        *,
        limit: int = ...,
        offset: int = ...,
        rank: Rank = ...,
        where: Where | None = ...,
        where_document: Mapping[str, Any] | None = ...,
        complete: Complete | None = ...,
        using: str | None = ...,
        exact: bool = ...,
        with_payload: WithPayload = ...,
        with_embedding: bool = ...,
    ) -> SearchHits[IdT]: ...
    def search_many(
        self,
        embeddings: Sequence[EmbeddingInput | str],
        *,
        limit: int = ...,
        offset: int = ...,
        where: Where | Sequence[Where | None] | None = ...,
        where_document: Mapping[str, Any] | None = ...,
        min_score: float | None = ...,
        complete: Complete | None = ...,
        using: str | None = ...,
        exact: bool = ...,
        with_payload: WithPayload = ...,
        with_embedding: bool = ...,
    ) -> list[SearchHits[IdT]]: ...
    def recommend(
        self,
        positive: Sequence[IdInput | EmbeddingInput],
        negative: Sequence[IdInput | EmbeddingInput] = ...,
        *,
        limit: int = ...,
        offset: int = ...,
        where: Where | None = ...,
        where_document: Mapping[str, Any] | None = ...,
        strategy: Strategy = ...,
        complete: Complete | None = ...,
        using: str | None = ...,
        exact: bool = ...,
        with_payload: WithPayload = ...,
        with_embedding: bool = ...,
    ) -> SearchHits[IdT]: ...
    def stream_search(
        self,
        embedding: EmbeddingInput | str,
        *,
        batch_size: int = ...,
        where: Where | None = ...,
        where_document: Mapping[str, Any] | None = ...,
        min_score: float | None = ...,
        using: str | None = ...,
        with_payload: WithPayload = ...,
        with_embedding: bool = ...,
    ) -> Iterator[SearchHit[IdT]]: ...
    def count_words(self) -> WordStatistics: ...
    def word_statistics(self) -> WordStatistics | None: ...

class Repositories:
    @property
    def vectors(self) -> VectorRepository: ...
    @property
    def factors(self) -> FactorRepository: ...
    @property
    def edges(self) -> EdgeRepository: ...
    @property
    def arms(self) -> ArmRepository: ...
    @property
    def embeddings(self) -> EmbeddingRepository: ...
    @property
    def idempotency(self) -> IdempotencyRepository: ...
    def collection(
        self,
        model: type[object] | str,
        collection: Collection | None = ...,
        *,
        namespace: Any = ...,
        embedder: object = ...,
        name: str | None = ...,
        revision: str = ...,
    ) -> VectorRepository[IdT]: ...

class UnitOfWork(Repositories):
    session: Session
    def options(
        self, *, timeout_seconds: float | None = ..., lock_timeout_seconds: float | None = ...
    ) -> AbstractContextManager[None]: ...

class Lanes(Repositories):
    def unit_of_work(
        self, *, isolation_level: IsolationLevel | None = ..., timeout_seconds: float | None = ...
    ) -> AbstractContextManager[UnitOfWork]: ...
    @overload
    def run(
        self,
        work: Callable[[UnitOfWork], T],
        *,
        isolation_level: IsolationLevel | None = ...,
        max_attempts: int = ...,
        timeout_seconds: float = ...,
        retry_unavailable: bool = ...,
        idempotency_key: None = ...,
    ) -> T: ...
    @overload
    def run(
        self,
        work: Callable[[UnitOfWork], T],
        *,
        isolation_level: IsolationLevel | None = ...,
        max_attempts: int = ...,
        timeout_seconds: float = ...,
        retry_unavailable: bool = ...,
        idempotency_key: str,
    ) -> T | None: ...
    def with_settings(self, settings: Mapping[str, SettingValue]) -> DatabaseView: ...
    def options(
        self,
        *,
        timeout_seconds: float | None = ...,
        lock_timeout_seconds: float | None = ...,
        consistency: Consistency | None = ...,
    ) -> DatabaseView: ...
    def token(self) -> str | None: ...
    def reading_after(self, token: str | None) -> DatabaseView: ...
    def namespace(self, name: str) -> DatabaseView: ...

class DatabaseView(Lanes):
    def unit_of_work(
        self, *, isolation_level: IsolationLevel | None = ..., timeout_seconds: float | None = ...
    ) -> AbstractContextManager[UnitOfWork]: ...

class Database(Lanes):
    def __init__(self, target: database.Database) -> None: ...
    @classmethod
    def connect(
        cls,
        target: Settings | str | URL | None = ...,
        *,
        replicas: Sequence[str | URL] | None = ...,
        consistency: Consistency | None = ...,
        encryption_keys: EncryptionKeys | None = ...,
    ) -> Self: ...
    def open(self) -> Self: ...
    def close(self, *, grace_seconds: float = ...) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    @property
    def settings(self) -> Settings | None: ...
    def unit_of_work(
        self, *, isolation_level: IsolationLevel | None = ..., timeout_seconds: float | None = ...
    ) -> AbstractContextManager[UnitOfWork]: ...
    def status(self, *, exact: bool = ...) -> Status: ...
