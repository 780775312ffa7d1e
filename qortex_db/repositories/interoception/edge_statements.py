"""The statements over `interoception_edge_buffer`, each built once, when it is first used."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ARRAY,
    DateTime,
    Double,
    Integer,
    and_,
    bindparam,
    cast,
    column,
    delete,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH, insert

from qortex_db.checks import MAX_INT4
from qortex_db.engine.citus import or_on_citus
from qortex_db.models import InteroceptionEdge
from qortex_db.repositories.idempotency import claimed
from qortex_db.repositories.locking import in_key_order
from qortex_db.sql import Text, func

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Delete, Select

_edges: Any = InteroceptionEdge.__table__
_KEY: Final = (_edges.c.src_id, _edges.c.tgt_id)
_MOST: Final = literal_column(str(MAX_INT4), Integer)


@cache
def load() -> Select[Any]:
    """Every edge."""
    return select(*_KEY, *_stats())


@cache
def get() -> Select[Any]:
    """One edge."""
    pair = (
        _edges.c.src_id == bindparam("src", type_=Text),
        _edges.c.tgt_id == bindparam("tgt", type_=Text),
    )
    return select(*_stats()).where(*pair)


@cache
def save() -> Any:
    """Write edges over what is there."""
    statement = _upsert()
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=list(_KEY),
        set_={"hit_count": new.hit_count, "scores": new.scores, "last_seen": new.last_seen},
    )


@cache
def record(*, one: bool, once: bool) -> Any:
    """Add observations to edges, one or several; to none where one of them has no room for them.

    Of several, and under a key, that is read first; of one, the row says it when it is locked.
    """
    if once:
        statement = _upsert(claimed(_have_room()))
    else:
        statement = _upsert() if one else _upsert(_have_room())
    new = statement.excluded

    def keeping(newest: ColumnElement[Any]) -> Any:
        path = cast(newest, JSONPATH)
        every = _edges.c.scores.op("||")(new.scores)
        return statement.on_conflict_do_update(
            index_elements=list(_KEY),
            set_={
                "hit_count": _edges.c.hit_count + new.hit_count,
                "scores": func.jsonb_path_query_array(every, path, type_=JSONB),
                "last_seen": new.last_seen,
            },
            where=_edges.c.hit_count <= _MOST - new.hit_count if one and not once else None,
        ).returning(*_stats())

    # There what comes on conflict has no parameters: it is written into the statement, a number.
    literal = bindparam("newest", type_=Text, literal_execute=True)
    return or_on_citus(keeping(bindparam("newest")), lambda: keeping(literal))


@cache
def get_many() -> Select[Any]:
    """These edges, as they are."""
    return select(*_KEY, *_stats()).where(_are_listed())


@cache
def remove() -> Delete:
    """Delete edges by their keys."""
    return in_key_order(delete(_edges), _KEY, _are_listed())


@cache
def promote() -> Any:
    """Lock what is ready and free, then delete it: each edge is one promoter's.

    Who skips what others hold waits for nobody, so the order of locks may be that of merit. A row
    that changed since the snapshot is looked at again as it is now, by the lock and by the delete.
    """
    average = avg_score()
    best = (
        select(*_KEY)
        .where(is_ready())
        .order_by(_edges.c.hit_count.desc(), average.desc(), *(key.collate("C") for key in _KEY))
        .limit(cast(bindparam("limit"), Integer))  # NULL is none
    )
    change = delete(_edges).returning(*_KEY, _edges.c.hit_count, average.label("avg_score"))

    def of(rows: Any, *besides: Any) -> Any:
        ready = rows.cte("_ready").prefix_with("MATERIALIZED")
        return change.where(*(key == ready.c[key.name] for key in _KEY), *besides)

    # On Citus, where others may take some of them meanwhile, it may be fewer than the limit.
    return or_on_citus(of(best.with_for_update(skip_locked=True)), lambda: of(best, is_ready()))


@cache
def summary() -> Select[Any]:
    """Counts over the buffer."""
    return select(
        func.count(),
        func.sum(_edges.c.hit_count),
        func.avg(_edges.c.hit_count),
        func.max(_edges.c.hit_count),
        func.count().filter(is_ready()),
    ).select_from(_edges)


@cache
def avg_score() -> ColumnElement[float]:
    """The mean of an edge's scores; 0 without any."""
    value = func.jsonb_array_elements_text(_edges.c.scores).table_valued(column("value", Text))
    # In the order of the array and in binary, so the same to the last digit as EdgeStats.avg_score.
    mean = select(func.avg(cast(value.c.value, Double))).select_from(value).scalar_subquery()
    return func.coalesce(mean, 0.0)


@cache
def is_ready() -> ColumnElement[bool]:
    """Whether `promote` would take an edge."""
    often = _edges.c.hit_count >= bindparam("min_hits", type_=Integer)
    similar: ColumnElement[bool] = bindparam("min_avg_score", type_=Double) <= avg_score()
    return and_(often, similar)


def _stats() -> tuple[Any, ...]:
    return _edges.c.hit_count, cast(_edges.c.scores, Text).label("scores"), _edges.c.last_seen


def _are_listed() -> ColumnElement[bool]:
    listed: Any = (
        func.unnest(cast(bindparam("srcs"), ARRAY(Text)), cast(bindparam("tgts"), ARRAY(Text)))
        .table_valued(column("src_id", Text), column("tgt_id", Text))
        .render_derived(name="pairs")
    )
    return tuple_(*_KEY).in_(select(listed.c.src_id, listed.c.tgt_id))


def _have_room() -> ColumnElement[bool]:
    given = _rows({name: _ARRAYS[name] for name in ("src_id", "tgt_id", "hit_count")}, "given")
    full: Select[Any] = (
        select(literal_column("1").label("one"))
        .select_from(given.join(_edges, and_(*(key == given.c[key.name] for key in _KEY))))
        .where(_edges.c.hit_count > _MOST - given.c.hit_count)
    )
    # By itself, which Citus needs where one node has the table and others not.
    return ~select(full.cte("_full").prefix_with("MATERIALIZED")).exists()


_ARRAYS: Final[dict[str, tuple[str, Any]]] = {
    "src_id": ("srcs", Text),
    "tgt_id": ("tgts", Text),
    "hit_count": ("hits", Integer),
    "scores": ("scores", Text),
    "last_seen": ("times", DateTime(timezone=True)),
}


def _rows(arrays: dict[str, tuple[str, Any]], name: str) -> Any:
    # In a select list unnest() streams; in FROM its rows are put aside first.
    return select(
        *(
            func.unnest(cast(bindparam(given), ARRAY(kind)), type_=kind).label(column_name)
            for column_name, (given, kind) in arrays.items()
        )
    ).subquery(f"_{name}")


def _upsert(*conditions: Any) -> Any:
    rows = _rows(_ARRAYS, "rows")
    return insert(_edges).from_select(
        list(_ARRAYS),
        select(
            rows.c.src_id,
            rows.c.tgt_id,
            rows.c.hit_count,
            cast(rows.c.scores, JSONB),
            func.coalesce(rows.c.last_seen, func.now()),
        ).where(*conditions),
    )
