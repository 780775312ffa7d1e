"""The statements of the embedding cache, each built once, when it is first used.

None of them waits for a lock while it holds one that another waits for: inserts go in key order
and come before the statement's own evictions; those, and the notes of use, skip what is locked.

No parameter is called like a column: an UPDATE would take it for what it sets.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ARRAY,
    DateTime,
    Integer,
    LargeBinary,
    and_,
    bindparam,
    cast,
    column,
    delete,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from qortex_db.engine.citus import or_on_citus
from qortex_db.models import CachedEmbedding
from qortex_db.sql import Text, func, of_pgvector
from qortex_db.types import EncodedEmbeddings, SentEmbedding

if TYPE_CHECKING:
    from sqlalchemy import Delete

MAX_EXAMINED: Final = 256
"""How many rows of a group one statement looks at, however many a larger bound has left there."""

_cache: Any = CachedEmbedding.__table__
_KEY: Final = (_cache.c.text_hash, _cache.c.model, _cache.c.revision, _cache.c.dimensions)


@cache
def find() -> Any:
    """The cached embeddings of texts, and for which of them a note of use is due.

    None is where it could not be written: on a standby, in a read-only transaction, or for a role
    that may only read.
    """
    writable = and_(
        func.current_setting(literal_column("'transaction_read_only'")) == literal_column("'off'"),
        func.has_column_privilege(
            literal_column("tableoid"), literal_column("'last_used'"), literal_column("'UPDATE'")
        ),
    )
    return select(
        _cache.c.text_hash,
        of_pgvector.vector_send(_cache.c.vec, type_=SentEmbedding()),
        and_(_is_stale(), writable).label("is_due"),
    ).where(*_asked_for())


@cache
def store() -> Delete:
    """Insert what is new; then, in each group that this overfills, drop what was used least lately.

    A group is a range of hashes, so that neither counting nor finding the oldest costs more in a
    large table than in a small one.
    """
    rows = select(
        func.unnest(_hashes()),
        bindparam("of_model", type_=Text),
        bindparam("of_revision", type_=Text),
        bindparam("of_dimensions", type_=Integer),
        func.unnest(cast(bindparam("vecs"), EncodedEmbeddings())),
    )
    new = (
        insert(_cache)
        .from_select([*_KEY, _cache.c.vec], rows)
        .on_conflict_do_nothing()
        .returning(literal_column("1"))
        .cte("_new")
    )
    groups: Any = (
        func.unnest(
            cast(bindparam("lows"), ARRAY(LargeBinary)),
            cast(bindparam("highs"), ARRAY(LargeBinary)),
            cast(bindparam("rooms"), ARRAY(Integer)),
        )
        .table_valued(
            column("low", LargeBinary), column("high", LargeBinary), column("room", Integer)
        )
        .render_derived(name="groups")
    )
    members = (
        select(_ctid.label("tid"), _cache.c.last_used, _cache.c.text_hash)
        .where(_cache.c.text_hash.between(groups.c.low, groups.c.high))
        .order_by(_cache.c.text_hash)
        .limit(literal_column(str(MAX_EXAMINED)))
        .lateral("_members")
    )
    place = func.row_number().over(
        partition_by=groups.c.low, order_by=(members.c.last_used.desc(), members.c.text_hash)
    )
    ranked = (
        select(members.c.tid, groups.c.room, place.label("place"))
        .select_from(groups.join(members, true()))
        .subquery("_ranked")
    )
    too_many = select(ranked.c.tid).where(ranked.c.place > ranked.c.room).scalar_subquery()
    # To count the inserted is to have inserted them, and waited for whoever inserts the same.
    inserted: Any = select(func.count()).select_from(new).scalar_subquery()
    # By their places: a join by keys, planned without statistics, reads the whole table.
    old = (
        select(_ctid.label("tid"))
        .select_from(_cache)
        .where(inserted >= 0, _ctid == func.any(func.array(too_many)))
        .with_for_update(skip_locked=True)
        .cte("_old")
        .prefix_with("MATERIALIZED")
    )
    locked = func.array(select(old.c.tid).scalar_subquery())
    return or_on_citus(
        delete(_cache).where(_ctid == func.any(locked)), lambda: _store_apart(groups, inserted)
    )


def _store_apart(groups: Any, inserted: Any) -> Delete:
    """The same by keys: on Citus a row's place is that in a shard, of which there are several."""
    place = func.row_number().over(
        partition_by=groups.c.low, order_by=(_cache.c.last_used.desc(), _cache.c.text_hash)
    )
    members = _cache.join(groups, _cache.c.text_hash.between(groups.c.low, groups.c.high))
    columns = *_KEY, groups.c.room, place.label("place")
    ranked = select(*columns).select_from(members).cte("_ranked").prefix_with("MATERIALIZED")
    same = (key == ranked.c[key.name] for key in _KEY)
    return delete(_cache).where(*same, ranked.c.place > ranked.c.room, inserted >= 0)


@cache
def touch() -> Any:
    """Note the use of embeddings."""
    conditions = (*_asked_for(), _is_stale())
    rows = select(*_KEY).where(*conditions).with_for_update(skip_locked=True)
    stale = rows.cte("_stale").prefix_with("MATERIALIZED")
    change = update(_cache).values(last_used=func.now())
    same = (key == stale.c[key.name] for key in _KEY)
    return or_on_citus(change.where(*same), lambda: change.where(*conditions))


@cache
def clear(*, of_model: bool) -> Any:
    """Delete a batch in key order, from where the one before ended: of one model, or of all."""
    conditions = [_model_is()] if of_model else []
    first = (
        select(*_KEY)
        .where(_cache.c.text_hash >= bindparam("after", type_=LargeBinary), *conditions)
        .order_by(*_KEY)
        .limit(bindparam("batch_size", type_=Integer))
    )

    def of(rows: Any) -> Any:
        keys = rows.cte("_keys").prefix_with("MATERIALIZED")
        same = (key == keys.c[key.name] for key in _KEY)
        return delete(_cache).where(*same).returning(_cache.c.text_hash)

    return or_on_citus(of(first.with_for_update()), lambda: of(first))


@cache
def stats() -> Any:
    """Counts by model, and the size of it all."""
    size = (
        select(func.pg_total_relation_size(literal_column("tableoid")))
        .select_from(_cache)
        .limit(literal_column("1"))
        .scalar_subquery()
    )
    return select(_cache.c.model, func.count(), size).group_by(_cache.c.model)


_ctid: Final[Any] = literal_column("ctid")


def _hashes() -> Any:
    return cast(bindparam("hashes"), ARRAY(LargeBinary))


def _model_is() -> Any:
    return _cache.c.model == bindparam("of_model", type_=Text)


def _asked_for() -> tuple[Any, ...]:
    return (
        _cache.c.text_hash == func.any(_hashes()),
        _model_is(),
        _cache.c.revision == bindparam("of_revision", type_=Text),
        _cache.c.dimensions == bindparam("of_dimensions", type_=Integer),
    )


def _is_stale() -> Any:
    return _cache.c.last_used < bindparam("stale_before", type_=DateTime(timezone=True))
