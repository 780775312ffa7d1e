"""The metrics, by their names; silent until OpenTelemetry has a provider."""

from __future__ import annotations

import sys
from collections import defaultdict
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics
from opentelemetry.metrics import Observation, _internal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

MOST_VALUES: Final = 100
"""How many values a label has; all further ones are one, `other`."""
OTHER: Final = "other"
SECONDS: Final = (
    *(0.0001, 0.0002, 0.0003, 0.0005, 0.00075),
    *(0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0),
)
"""Bounds of histograms: each at most twice the one before, so a percentile is off by less."""
_COUNTS: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
_API: Final = metrics.__name__
_EMITTER: Final = "qortex.observe.emitter"

_meter = metrics.get_meter("qortex_db")
_values: defaultdict[str, set[str]] = defaultdict(set)


def label(name: str, value: str) -> dict[str, Any]:
    """A label with one of at most so many values: each is a series for ever."""
    known = _values[name]
    if value not in known:
        if len(known) >= MOST_VALUES:
            return {name: OTHER}
        known.add(value)
    return {name: value}


def are_measured() -> bool:
    """Whether anybody may read the metrics: the API's own providers measure nothing."""
    # `get_meter_provider` asks the environment each time.
    if getattr(_internal, "_METER_PROVIDER", True) is None:
        return False
    return not type(metrics.get_meter_provider()).__module__.startswith(_API)


def qortex_measures() -> bool:
    """Whether qortex runs in this process and has its own instruments."""
    emitter = sys.modules.get(_EMITTER)
    return getattr(emitter, "_meter_provider", None) is not None


class _Instrument:
    """An instrument that fails no call: by the time it is told, a write has happened.

    Args:
        instrument: OpenTelemetry's.
        is_shared: Whether qortex has one of its name; where qortex measures, it is silent.
    """

    def __init__(self, instrument: Any, *, is_shared: bool = False) -> None:
        self._instrument = instrument
        self._is_shared = is_shared

    def add(self, amount: int, labels: Mapping[str, Any] | None = None) -> None:
        self._tell("add", amount, labels)

    def record(self, amount: float, labels: Mapping[str, Any] | None = None) -> None:
        self._tell("record", amount, labels)

    def set(self, amount: float, labels: Mapping[str, Any] | None = None) -> None:
        self._tell("set", amount, labels)

    def _tell(self, way: str, amount: float, labels: Mapping[str, Any] | None) -> None:
        if self._is_shared and qortex_measures():
            return
        with suppress(Exception):  # a host's own provider may raise anything
            getattr(self._instrument, way)(amount, labels)


# Units that are in braces, or none, leave a name as it is where Prometheus reads it.
def _counter(name: str, unit: str, description: str, *, is_shared: bool = False) -> _Instrument:
    made = _meter.create_counter(name, unit=f"{{{unit}}}", description=description)
    return _Instrument(made, is_shared=is_shared)


def _histogram(
    name: str,
    description: str,
    unit: str = "s",
    bounds: Sequence[float] = SECONDS,
    *,
    is_shared: bool = False,
) -> _Instrument:
    made = _meter.create_histogram(
        name, unit=unit, description=description, explicit_bucket_boundaries_advisory=bounds
    )
    return _Instrument(made, is_shared=is_shared)


def _last(name: str, description: str, *, is_shared: bool = False) -> _Instrument:
    return _Instrument(_meter.create_gauge(name, description=description), is_shared=is_shared)


vec_add_total = _counter(
    "qortex_vec_add_total", "vector", "Vectors given to be stored", is_shared=True
)
vec_add_duration = _histogram(
    "qortex_vec_add_duration_seconds",
    "Time of storing vectors, of a call or of a batch of an ingest",
    is_shared=True,
)
vec_search_duration = _histogram(
    "qortex_vec_search_duration_seconds", "Time of a call that compares vectors", is_shared=True
)
vec_search_candidates = _histogram(
    "qortex_vec_search_candidates", "Hits that a search gave", "{vector}", _COUNTS, is_shared=True
)
vec_search_top_score = _last(
    "qortex_vec_search_top_score", "Best score of the last search", is_shared=True
)
vec_search_score_spread = _last(
    "qortex_vec_search_score_spread",
    "Best score of the last search less its lowest",
    is_shared=True,
)
vec_recall = _last(
    "qortex_vec_recall", "Share of the true neighbours that an index finds, at the last probe"
)
learning_selections_total = _counter(
    "qortex_learning_selections_total", "selection", "Bandit selections", is_shared=True
)
learning_observations_total = _counter(
    "qortex_learning_observations_total", "observation", "Bandit observations", is_shared=True
)
factor_updates_total = _counter(
    "qortex_factor_updates_total", "update", "Factor updates", is_shared=True
)
edges_promoted_total = _counter(
    "qortex_edges_promoted_total", "edge", "Edges taken out of the buffer", is_shared=True
)
embedding_cache_hits_total = _counter(
    "qortex_embedding_cache_hits_total", "text", "Embeddings found in the cache"
)
embedding_cache_misses_total = _counter(
    "qortex_embedding_cache_misses_total", "text", "Embeddings left to a model"
)
reads_total = _counter("qortex_reads_total", "statement", "Reads that a replica could answer")
call_duration = _histogram("qortex_call_duration_seconds", "Time of a repository's method")
rows_read_total = _counter("qortex_rows_read_total", "row", "Rows that calls gave")
rows_written_total = _counter(
    "qortex_rows_written_total", "row", "Rows that calls wrote or deleted"
)
errors_total = _counter("qortex_errors_total", "error", "Calls that failed, by the error's class")
slow_calls_total = _counter(
    "qortex_slow_calls_total", "call", "Calls slower than slow_call_seconds"
)
retries_total = _counter("qortex_retries_total", "retry", "Work begun again, by the reason")
pool_wait = _histogram(
    "qortex_pool_wait_seconds",
    "Time that calls waited for a connection of the pool, of those that waited",
)


class Shown:
    """Gauges that a scrape reads from memory: what was last told of them, by whoever tells it."""

    def __init__(self) -> None:
        self._told: dict[object, Mapping[str, list[Observation]]] = {}

    def tell(self, teller: object, readings: Mapping[str, list[Observation]]) -> None:
        """Show these in the place of what the same one told before."""
        self._told[teller] = readings

    def forget(self, teller: object) -> None:
        self._told.pop(teller, None)

    def of(self, name: str) -> Iterator[Observation]:
        """What is told of one gauge now."""
        for readings in list(self._told.values()):  # a scrape has a thread of its own
            yield from readings.get(name, ())


shown = Shown()
"""What queries found; `gauges.py` asks them."""

GAUGES: Final = {
    "qortex_vec_index_size": "Vectors in a collection",
    "qortex_buffer_edges": "Edges in the buffer",
    "qortex_learning_posterior_mean": "Mean of an arm's posterior, of the arms with most pulls",
    "qortex_factor_mean": "Mean weight of the factors",
    "qortex_factor_entropy": "Entropy of the factors' weights, in bits",
}
"""Those that a query fills; qortex has all of them too."""

pools: Final[dict[object, tuple[object, Callable[[], tuple[int, int]]]]] = {}
"""Of the Databases that are open: their pool, and how many connections it has at most, and in use;
several may share one."""


def _gauge(name: str, description: str, read: Callable[[], Iterable[Observation]]) -> None:
    _meter.create_observable_gauge(name, callbacks=[lambda _: read()], description=description)


def _shown(name: str) -> Iterable[Observation]:
    return () if qortex_measures() else shown.of(name)


def _pooled(count: Callable[[int, int], int]) -> Iterable[Observation]:
    each = [ask() for ask in dict(list(pools.values())).values()]
    return [Observation(count(sum(most for most, _ in each), sum(used for _, used in each)))]


for _name, _description in GAUGES.items():
    _gauge(_name, _description, partial(_shown, _name))
_gauge(
    "qortex_pool_size",
    "Connections that the pools of the process may have",
    lambda: _pooled(lambda most, _: most),
)
_gauge("qortex_pool_used", "Those of them in use", lambda: _pooled(lambda _, used: used))
_gauge(
    "qortex_pool_free",
    "Those of them that are not in use, open or yet to be opened",
    lambda: _pooled(lambda most, used: max(0, most - used)),
)
