"""The metrics, by their names; silent until a host gives OpenTelemetry a provider."""

from __future__ import annotations

from opentelemetry import metrics

_meter = metrics.get_meter("qortex_db")

vec_add_total = _meter.create_counter(
    "qortex_vec_add_total", unit="{vector}", description="Vectors given to be stored"
)
vec_add_duration = _meter.create_histogram(
    "qortex_vec_add_duration_seconds", unit="s", description="Time of storing vectors"
)
vec_search_duration = _meter.create_histogram(
    "qortex_vec_search_duration_seconds", unit="s", description="Time of a vector search"
)
vec_recall = _meter.create_gauge(
    "qortex_vec_recall", unit="1", description="Share of the true neighbours that an index finds"
)
learning_selections_total = _meter.create_counter(
    "qortex_learning_selections_total", unit="{selection}", description="Bandit selections"
)
learning_observations_total = _meter.create_counter(
    "qortex_learning_observations_total", unit="{observation}", description="Bandit observations"
)
factor_updates_total = _meter.create_counter(
    "qortex_factor_updates_total", unit="{update}", description="Factor updates"
)
edges_promoted_total = _meter.create_counter(
    "qortex_edges_promoted_total", unit="{edge}", description="Edges taken out of the buffer"
)
embedding_cache_hits_total = _meter.create_counter(
    "qortex_embedding_cache_hits_total", unit="{text}", description="Embeddings found in the cache"
)
embedding_cache_misses_total = _meter.create_counter(
    "qortex_embedding_cache_misses_total", unit="{text}", description="Embeddings left to a model"
)
reads_total = _meter.create_counter(
    "qortex_reads_total", unit="{statement}", description="Reads that a replica could answer"
)
