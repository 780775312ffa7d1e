"""The statements over `interoception_factors`, each built once, when it is first used."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Double,
    bindparam,
    case,
    cast,
    column,
    delete,
    extract,
    literal_column,
    null,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from qortex_db.engine.citus import on_citus, or_on_citus
from qortex_db.models import InteroceptionFactor
from qortex_db.repositories.chunks import Chunk
from qortex_db.repositories.idempotency import claimed
from qortex_db.repositories.locking import in_key_order
from qortex_db.sql import Text, double, func

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement, Select

    from qortex_db.repositories.chunks import Step

DELTAS: Final[Mapping[str, float]] = {"accepted": 0.1, "rejected": -0.05, "partial": 0.03}
"""What an outcome adds to a weight."""
MIN_WEIGHT: Final = 0.1
MAX_WEIGHT: Final = 5.0
DEFAULT_WEIGHT: Final = 1.0
_MOST_HALF_LIVES: Final = 1_000.0  # PostgreSQL refuses a power that underflows

_NO_WEIGHT: Final = 1e-100
_DATABASE: Final = (
    "(SELECT pg_catalog.concat(c.system_identifier, '.', d.oid) "
    "FROM pg_catalog.pg_control_system() c, pg_catalog.pg_database d "
    "WHERE d.datname = pg_catalog.current_database())"
)

_factors: Any = InteroceptionFactor.__table__


@cache
def load() -> Select[Any]:
    """Every weight by node."""
    return select(_factors.c.node_id, _factors.c.weight)


@cache
def get() -> Select[Any]:
    """The weights of nodes."""
    return load().where(_is_listed())


@cache
def save() -> Any:
    """Write weights as they are."""
    statement = _upsert()
    return _on_conflict(statement, statement.excluded.weight)


@cache
def adjust(*, once: bool) -> Any:
    """Move weights by outcomes; `once` it has taken its key.

    A new row has the default plus the outcome's delta; that sum also tells which delta it is.

    The deltas are parameters: as differences of `excluded` they would carry its rounding.
    """
    statement = _upsert(claimed()) if once else _upsert()
    new = statement.excluded
    delta = case(
        *((new.weight == double(DEFAULT_WEIGHT + each), double(each)) for each in DELTAS.values()),
        else_=double(0.0),
    )

    def by(pace: ColumnElement[float]) -> Any:
        weight = _clamped(_decayed(new.updated_at, pace) + delta)
        return _on_conflict(statement, weight).returning(_factors.c.node_id, _factors.c.weight)

    # There what comes on conflict has no parameters: it is written into the statement.
    literal = bindparam("half_lives_per_second", type_=Double, literal_execute=True)
    return or_on_citus(by(_PACE), lambda: by(cast(literal, Double)))


@cache
def remove() -> Any:
    """Delete weights by node."""
    return in_key_order(delete(_factors), [_factors.c.node_id], _is_listed())


@cache
def decay(*, listed: bool) -> Any:
    """Move weights towards the default: all of them, or those listed.

    What would stay as it is keeps its time too: it moves once enough has passed to see.
    """
    return _decay(*([_is_listed()] if listed else []))


@cache
def decay_chunk(step: Step) -> Any:
    """The same of a batch of all of them."""
    key = _factors.c.node_id
    behind = [key > bindparam("after", type_=Text)] if step.goes_on else []
    chunk = Chunk(step, key, [key], behind)
    change = _decay(chunk.contains(key))

    def of(change: Any) -> Any:
        return chunk.changed_by(change.returning(literal_column("1")).cte("_done"), _factors)

    return or_on_citus(of(change), lambda: of(on_citus(change)))


def _decay(*conditions: Any) -> Any:
    weight = _decayed(func.now())
    moves = (weight != _factors.c.weight) | _factors.c.updated_at.is_(None)
    latest = func.greatest(_factors.c.updated_at, func.now())
    change = update(_factors).values(weight=weight, updated_at=latest)
    return in_key_order(change, [_factors.c.node_id], moves, *conditions, key_share=True)


@cache
def summary() -> Any:
    """All weights at a glance."""
    # PostgreSQL refuses what underflows; so small a share has no part in the entropy.
    total = func.sum(_factors.c.weight).over()
    share = case(
        ((total > double(0.0)) & (_factors.c.weight > _NO_WEIGHT), _factors.c.weight / total)
    )
    weights = select(_factors.c.weight, share.label("share")).subquery("_weights")
    weight = weights.c.weight
    return select(
        func.count(),
        func.avg(weight),
        func.min(weight),
        func.max(weight),
        func.count().filter(weight > DEFAULT_WEIGHT),
        func.count().filter(weight < DEFAULT_WEIGHT),
        func.sum(-weights.c.share * _ln(weights.c.share) / _ln(double(2.0))),
    ).select_from(weights)


def _ln(value: Any) -> Any:
    return func.ln(value, type_=Double)


def _number(transaction_id: Any) -> Any:
    return cast(cast(transaction_id, Text), BigInteger)


TABLE: Final[Any] = _factors
ON_SEVERAL_NODES: Final = text("""
SELECT EXISTS (SELECT FROM pg_catalog.pg_dist_partition
  WHERE logicalrelid::oid = pg_catalog.to_regclass(CAST(:table_name AS text))::oid
    AND (partmethod = 'h'::"char" OR repmodel = 't'::"char"))
""")


@cache
def changes() -> Any:
    """The cursor's own row, then the rows written since a cursor.

    The cursor is the oldest transaction still running: all before it have ended, and are seen
    here. So whatever a later call sees for the first time has this number or a later one, however
    long it takes to commit; a savepoint's number is later than its transaction's. Of a row's number
    only the lower half is stored. Counted on from the cursor, it falls below the newest number
    where the row is new; where an ancient row does so by chance, it is sent once too often.
    """
    snapshot = func.pg_current_snapshot()
    end = _number(func.pg_snapshot_xmax(snapshot))
    since = cast(bindparam("since"), BigInteger)
    distance = (_number(literal_column("xmin")) - since).op("&")(2**32 - 1)
    written = func.coalesce(distance < end - since, True)
    return union_all(
        select(
            null().label("node_id"),
            null().label("weight"),
            literal_column(_DATABASE, Text).label("database"),
            _number(func.pg_snapshot_xmin(snapshot)).label("cursor"),
            end.label("newest"),
            select(func.count()).select_from(_factors).scalar_subquery().label("count"),
        ),
        select(_factors.c.node_id, _factors.c.weight, null(), null(), null(), null()).where(
            written
        ),
    )


def _is_listed() -> Any:
    return _factors.c.node_id == func.any(cast(bindparam("ids"), ARRAY(Text)))


def _clamped(weight: Any) -> Any:
    return func.least(double(MAX_WEIGHT), func.greatest(double(MIN_WEIGHT), weight))


_PACE: Final = cast(bindparam("half_lives_per_second"), Double)


def _decayed(until: Any, pace: ColumnElement[float] = _PACE) -> Any:
    """The weight, nearer to its default by the time since it last changed.

    As a step from where it is: no time leaves it exactly alone. Clocks of transactions overlap, so
    the time may be negative, and adopted rows may have none; both are no time.
    """
    seconds = cast(extract("epoch", until - _factors.c.updated_at), Double)
    half_lives = func.greatest(seconds, double(0.0)) * pace
    share = double(1.0) - func.power(double(0.5), func.least(half_lives, double(_MOST_HALF_LIVES)))
    return _factors.c.weight + (double(DEFAULT_WEIGHT) - _factors.c.weight) * share


def _upsert(*conditions: Any) -> Any:
    rows = (
        func.unnest(cast(bindparam("ids"), ARRAY(Text)), cast(bindparam("weights"), ARRAY(Double)))
        .table_valued(column("node_id", Text), column("weight", Double))
        .render_derived(name="rows")
    )
    return insert(_factors).from_select(
        ["node_id", "weight"], select(rows.c.node_id, rows.c.weight).where(*conditions)
    )


def _on_conflict(statement: Any, weight: Any) -> Any:
    """Change a stored weight; its time never goes back, or decay would count some of it twice."""
    latest = func.greatest(_factors.c.updated_at, statement.excluded.updated_at)
    return statement.on_conflict_do_update(
        index_elements=[_factors.c.node_id], set_={"weight": weight, "updated_at": latest}
    )
