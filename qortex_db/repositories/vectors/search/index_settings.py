"""How a search uses its index: what it is told, and what it takes unasked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from qortex_db import checks
from qortex_db.errors import InvalidInputError
from qortex_db.filters import values_of
from qortex_db.limits import Complete
from qortex_db.repositories import validation
from qortex_db.repositories.validation import MAX_LIMIT
from qortex_db.repositories.vectors.search.nearest import SearchForm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qortex_db.filters import Filter
    from qortex_db.repositories.vectors.rows.payload_parts import WithPayload
    from qortex_db.repositories.vectors.table import VectorTable

MAX_EF_SEARCH: Final = 1_000
"""pgvector's own limit of `hnsw.ef_search`; beyond it an iterative scan goes on."""
MAX_PROBES: Final = 32_768
"""pgvector's own limit of `ivfflat.probes`."""
MAX_QUERIES: Final = 32
"""The most queries of one statement: each is a branch of its own."""
BRANCH_LIMIT: Final = 100
"""How many rows a branch brings in where several are fused, unless said otherwise."""

IterativeScan: TypeAlias = Literal["relaxed", "strict", "off"]

_DEFAULT_EF_SEARCH = 40
_FILTERED_EF_SEARCH = 400
_SCANS = {"relaxed": "relaxed_order", "strict": "strict_order", "off": "off"}
_LIBRARIES = {"ef_search": "hnsw", "iterative_scan": "hnsw", "probes": "ivfflat"}


@dataclass(frozen=True, slots=True)
class Knobs:
    """What a caller says of an index; None leaves it to us."""

    ef_search: int | None = None
    probes: int | None = None
    iterative_scan: IterativeScan | None = None
    oversampling: float | None = None
    complete: Complete | None = None


_UNTOUCHED: Final = Knobs()


@dataclass(frozen=True, slots=True)
class Approach:
    """How a search goes about it.

    Attributes:
        filter: What it is narrowed by; None for nothing.
        form: Of its statement.
        params: The parameters that the filter, the settings and the candidates have in it.
        settings: What it is run under, where it can't set that itself.
    """

    filter: Filter | None
    form: SearchForm
    params: Mapping[str, Any]
    settings: Mapping[str, str] = field(default_factory=dict)

    def told(self, rows: Sequence[Any]) -> tuple[Sequence[Any], bool]:
        """The rows that are hits, and whether they are all that could be had."""
        if not self.form.bounded:
            return rows, True
        hits = [row for row in rows if row[0] is not None]
        # The row that says so may be among those that were skipped.
        return hits, len(hits) == len(rows) and bool(rows or not self.form.skips)


async def approach(
    vectors: VectorTable,
    candidates: int,
    narrowed: Filter | None,
    *,
    exact: bool,
    with_payload: WithPayload = True,
    with_embedding: bool = False,
    excluding: bool = False,
    beside: int = 0,
    skipped: int = 0,
    queries: int = 1,
    knobs: Knobs = _UNTOUCHED,
) -> Approach:
    """How to find so many candidates.

    Args:
        excluding: Whether rows are left out even without a filter.
        beside: The most rows that another index brings in to the same statement.
        skipped: How many of them are left out of the answer.
        queries: How many there are.
    """
    checks.check_flag(exact, name="exact")
    complete = vectors.limits.complete
    if knobs.complete is not None:
        checks.check_choice(knobs.complete, get_args(Complete), name="complete")
        complete = knobs.complete
    reach = vectors.reach(candidates, knobs.oversampling)
    filtered = excluding or narrowed is not None or bool(vectors.scope.clauses)
    params: dict[str, Any] = {"candidates": candidates, "oversampled": reach, **values_of(narrowed)}
    bounded = complete != "always" and not exact
    facts = await vectors.facts()
    parts = vectors.even_parts(facts)
    settings = _settings(max(reach, beside), knobs, filtered=filtered, parts=parts)
    probed = 0
    spread = vectors.is_spread(facts)
    if facts.has_pages and not spread and not exact and narrowed is not None and narrowed.is_served:
        probed = vectors.limits.max_probed_rows
    if exact:
        settings = {}
    if spread and complete == "auto":  # no node knows of all rows
        bounded = bounded and not 0 <= facts.rows <= vectors.limits.max_compared_rows
    if bounded or probed:
        params["table_name"] = vectors.qualified_name
    if bounded:
        most = vectors.limits.max_compared_rows if complete == "auto" else -1
        params["max_compared_rows"] = float(most)
    if skipped:
        params["skipped"] = skipped
    named = {f"{_LIBRARIES[name]}.{name}": value for name, value in settings.items()}
    form = SearchForm(
        exact=exact,
        distributed=spread,
        queries=queries if spread else 1,
        skips=skipped > 0,
        bounded=bounded,
        probed=probed,
        partitioned=facts.partition_key is not None and probed > 0,
        walk=walk_of(max(reach, beside)),
        settings=() if spread else tuple(named),
        with_payload=vectors.body(with_payload),
        with_embedding=with_embedding,
    )
    return Approach(narrowed, form, params | settings, named if spread else {})


def check_offset(offset: object, limit: int) -> int:
    """How many hits are skipped before a page of so many."""
    skipped = checks.check_count(offset, name="offset")
    if skipped + limit > MAX_LIMIT:
        raise InvalidInputError(
            f"offset and limit are {skipped + limit:,} together; at most {MAX_LIMIT:,} fit. "
            "stream_search goes through all rows."
        )
    return skipped


def walk_of(count: int) -> int:
    """So many, or up to twice as many: few numbers, for the statements are as many."""
    walk = _DEFAULT_EF_SEARCH
    while walk < count:
        walk *= 2
    return walk


def _settings(count: int, knobs: Knobs, *, filtered: bool, parts: int = 1) -> dict[str, str]:
    """The settings of pgvector that a search needs, beyond what the server has.

    Args:
        parts: In how many indexes it looks, each of as good as any rows: together they find more
            than one, and one goes on where it brought in too few.
    """
    found = {}
    ef_search, iterative_scan = knobs.ef_search, knobs.iterative_scan
    if ef_search is not None:
        ef_search = validation.check_limit(ef_search, MAX_EF_SEARCH, name="ef_search")
    if iterative_scan is not None:
        checks.check_choice(iterative_scan, _SCANS, name="iterative_scan")
    # LIMIT above ef_search would silently return ef_search rows.
    if (
        filtered
        or ef_search is not None
        or iterative_scan is not None
        or count > _DEFAULT_EF_SEARCH
        or parts > 1
    ):
        least = _FILTERED_EF_SEARCH if filtered else _DEFAULT_EF_SEARCH
        if parts > 1:
            least = max(least // 4, least // parts) if filtered else int(least / math.sqrt(parts))
            count = 2 * count // parts
        found["ef_search"] = str(ef_search or min(MAX_EF_SEARCH, max(least, count)))
        scan = iterative_scan or ("relaxed" if filtered else "strict")
        found["iterative_scan"] = _SCANS[scan]
    if knobs.probes is not None:
        found["probes"] = str(validation.check_limit(knobs.probes, MAX_PROBES, name="probes"))
    return found
