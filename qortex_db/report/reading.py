"""What a report tells, read in one snapshot by a fixed number of statements."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from qortex_db import checks, learning
from qortex_db.errors import QueryTimeoutError
from qortex_db.learning import ArmState, Posterior
from qortex_db.models import QortexVector
from qortex_db.report import statements
from qortex_db.report.collections import read_collections
from qortex_db.repositories import validation
from qortex_db.repositories.interoception.edges import MIN_AVG_SCORE, MIN_HITS
from qortex_db.repositories.validation import MAX_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qortex_db.database import Database
    from qortex_db.engine import Executor
    from qortex_db.report.collections import CollectionReport
    from qortex_db.repositories import EdgeSummary, FactorSummary
    from qortex_db.status import Status

TOP: Final = 8
"""Arms of a context; as many as there are colours."""
_CANDIDATES: Final = 8 * TOP
"""Those whose lower bound is computed exactly."""
CONTEXTS: Final = 3
PANELS: Final = 12
EXTREMES: Final = 5
NEAREST: Final = 10
REPORT_SECONDS: Final = 300.0
"""How long a report is read at most; its statements have their own limits besides."""
_SNAPSHOT: Final = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


@dataclass(frozen=True, slots=True)
class Context:
    """A context of a learner, summed up over all its arms.

    Attributes:
        readable: What the hash stands for, as JSON; None where it was not seen with the history on.
        contexts: How many the learner has.
    """

    learner: str
    hash: str
    readable: str | None
    arms: int
    pulls: int
    reward: float
    contexts: int


@dataclass(frozen=True, slots=True)
class Pulls:
    """Pulls in equal bins of time.

    Attributes:
        recorded: Whether they are events; else each arm's pulls count at its last change.
        start: Of the first bin, in seconds since 1970.
        end: Of the last one.
        by_arm: The bins of each of the best arms; of all others, summed up, under None.
    """

    recorded: bool
    start: float
    end: float
    by_arm: dict[str | None, list[int]]


@dataclass(frozen=True, slots=True)
class Panel:
    """A context with its best arms, the highest lower bound of the interval first."""

    context: Context
    arms: list[tuple[str, ArmState, Posterior]]
    pulls: Pulls | None


@dataclass(frozen=True, slots=True)
class NearEdge:
    """An edge of the buffer."""

    src_id: str
    tgt_id: str
    hit_count: int
    avg_score: float
    last_seen: datetime | None

    @property
    def is_ready(self) -> bool:
        """Whether `promote` would take it, by its defaults."""
        return self.hit_count >= MIN_HITS and self.avg_score >= MIN_AVG_SCORE


@dataclass(frozen=True, slots=True)
class Report:
    """The state of a memory at one moment.

    Attributes:
        contexts: How many there are, of the learners asked for; a part of them has a panel.
        arm_names: How many arms there are by name, in however many contexts.
        factor_bins: How many factors there are by bin, the bins counted from 0.1 in steps of 0.05.
        edge_hits: How many edges are waiting and ready, by hits; the last counts all with more.
    """

    taken_at: datetime
    status: Status
    collections: list[CollectionReport]
    learners: list[str] | None
    contexts: int
    arm_names: int
    panels: list[Panel]
    factors: FactorSummary
    factor_bins: dict[int, int]
    boosted: list[tuple[str, float]]
    penalised: list[tuple[str, float]]
    edges: EdgeSummary
    edge_hits: dict[int, tuple[int, int]]
    nearest: list[NearEdge]


async def read(
    db: Database,
    *,
    learners: Iterable[str] | None = None,
    models: Iterable[type[object]] = (),
    colour: str | None = None,
) -> Report:
    """Read what a report tells: bounded, however much is stored.

    Args:
        learners: Only these; None means those with the most pulls.
        models: A host's collections, beside the default one.
        colour: The path of what colours the maps of vectors, as in a filter; by default, of each
            map, the key of payloads that parts its rows most evenly.

    Raises:
        InvalidInputError: `learners` is no list of ids, or a path of a map can't be read.
        QueryTimeoutError: It took longer than `REPORT_SECONDS`.
    """
    names = None if learners is None else validation.check_ids(learners, name="learners")
    try:
        async with asyncio.timeout(REPORT_SECONDS):
            return await _read(db, names, (QortexVector, *models), colour)
    except TimeoutError:
        raise QueryTimeoutError(
            f"The report was not read within {REPORT_SECONDS:g} s: the tables are locked, or the "
            "server is busy. Ask for fewer learners, or try again."
        ) from None


async def _read(
    db: Database, names: list[str] | None, models: Sequence[type[object]], colour: str | None
) -> Report:
    status = await db.status()
    collections = await read_collections(db, models, colour)
    async with db.unit_of_work() as uow:
        run = uow.executor.run
        await run(_SNAPSHOT, {})
        found = await contexts(uow.executor, names)
        panels = await _panels(uow.executor, [context for context, _ in found])
        bins = (await run(statements.factor_bins(), {})).rows
        extremes = (await run(statements.factor_extremes(), {"k": EXTREMES})).rows
        thresholds = {"min_hits": MIN_HITS, "min_avg_score": MIN_AVG_SCORE}
        hits: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
        for count, ready, number in (await run(statements.edge_hits(), thresholds)).rows:
            hits[count][ready] = number
        return Report(
            taken_at=datetime.now(UTC),
            status=status,
            collections=collections,
            learners=names,
            contexts=found[0][1] if found else 0,
            arm_names=(await run(statements.arm_names(), {})).rows[0][0],
            panels=panels,
            factors=await uow.factors.summary(),
            factor_bins=dict(bins),
            boosted=[(node, weight) for side, node, weight in extremes if side == "boosted"],
            penalised=[(node, weight) for side, node, weight in extremes if side == "penalised"],
            edges=await uow.edges.summary(),
            edge_hits={count: (waiting, ready) for count, (waiting, ready) in hits.items()},
            nearest=await nearest(uow.executor, limit=NEAREST),
        )


async def contexts(
    executor: Executor,
    learners: Sequence[str] | None,
    *,
    each: int = CONTEXTS,
    limit: int = PANELS,
) -> list[tuple[Context, int]]:
    """The contexts with the most pulls, at most `each` of a learner; and how many there are."""
    params = {"learners": learners, "contexts": each, "panels": limit}
    rows = (await executor.run(statements.panels(), params)).rows
    default = learning.context_hash(None)
    return [
        (Context(learner, key, "{}" if key == default else readable, *sums), total)
        for learner, key, readable, *sums, total in rows
    ]


async def nearest(
    executor: Executor,
    *,
    limit: int,
    min_hits: int = MIN_HITS,
    min_avg_score: float = MIN_AVG_SCORE,
) -> list[NearEdge]:
    """The edges that lack least to be promoted; those that lack nothing lead."""
    params = {
        "min_hits": checks.check_count(min_hits, name="min_hits"),
        "min_avg_score": checks.check_number(min_avg_score, name="min_avg_score"),
        "k": validation.check_limit(limit, MAX_LIMIT),
    }
    return [NearEdge(*row) for row in (await executor.run(statements.nearest_edges(), params)).rows]


async def _panels(executor: Executor, found: list[Context]) -> list[Panel]:
    keys = [(context.learner, context.hash) for context in found]
    params = {"learners": [key[0] for key in keys], "contexts": [key[1] for key in keys]}
    rows = (await executor.run(statements.best(), params | {"top": _CANDIDATES})).rows
    states = [ArmState(*row[3:7]) for row in rows]
    # A moment of numpy: not on the event loop's thread.
    posteriors = await asyncio.to_thread(learning.posteriors, states)
    best: defaultdict[tuple[str, str], list[tuple[str, ArmState, Posterior]]] = defaultdict(list)
    for row, state, posterior in zip(rows, states, posteriors, strict=True):
        best[row[0], row[1]].append((row[2], state, posterior))
    for key, arms in best.items():
        # An arm of a single pull may have the highest mean, and be of the least.
        best[key] = sorted(arms, key=lambda arm: (-arm[2].low, arm[0]))[:TOP]
    shown = [(*key, arm) for key, arms in best.items() for arm, _, _ in arms]
    of_best = params | {
        "best_learners": [one[0] for one in shown],
        "best_contexts": [one[1] for one in shown],
        "best_arms": [one[2] for one in shown],
    }
    recorded = (await executor.run(statements.pulls_of_events(), of_best)).rows
    changed = (await executor.run(statements.pulls_of_arms(), of_best)).rows
    pulls = _pulls(changed, recorded=False) | _pulls(recorded, recorded=True)
    return [
        Panel(context, best[key], pulls.get(key)) for context, key in zip(found, keys, strict=True)
    ]


def _pulls(rows: Sequence[Any], *, recorded: bool) -> dict[tuple[str, str], Pulls]:
    found: dict[tuple[str, str], Pulls] = {}
    for learner, context, arm, place, start, end, amount in rows:
        pulls = found.setdefault((learner, context), Pulls(recorded, start, end, {}))
        pulls.by_arm.setdefault(arm, [0] * statements.BINS)[place - 1] = amount
    return found
