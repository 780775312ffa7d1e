"""Keys by which a call that is repeated counts once."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import (
    Integer,
    Interval,
    LargeBinary,
    bindparam,
    cast,
    delete,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import insert

from qortex_db.engine import on_primary
from qortex_db.engine.citus import or_on_citus
from qortex_db.errors import IdempotencyKeyReusedError
from qortex_db.limits import DEFAULT_LIMITS, Limits
from qortex_db.messages import shown
from qortex_db.models import IdempotencyKey
from qortex_db.observability import Subject, observed
from qortex_db.repositories import validation
from qortex_db.sql import Text, func

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement, Delete, Select

    from qortex_db.engine import Executor

KEPT: Final = timedelta(days=30)
"""How long a key is kept by default, where keys are pruned."""
_PRUNED_ROWS: Final = 5_000
_keys: Any = IdempotencyKey.__table__


class Claim(NamedTuple):
    """What a call is known by; `params` are those of `claimed`."""

    key: str
    digest: bytes

    @property
    def params(self) -> Mapping[str, Any]:
        return {"idempotency_key": self.key, "idempotency_digest": self.digest}


def check_claim(key: object, call: Sequence[object]) -> Claim:
    """A call's key, and what tells it from another's.

    Args:
        key: Text of 1 to 1,024 bytes.
        call: Its method and its arguments, as JSON has them.
    """
    text = validation.check_id(key, name="idempotency_key")
    digest = hashlib.sha256(json.dumps(call).encode()).digest()
    return Claim(text, digest)


def claimed(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Take a key, if these are so: whether it is this statement's to do.

    Who takes the same key at the same time waits until this transaction has ended.
    """
    new = _take(*conditions).cte("_claimed")
    return select(func.count()).select_from(new).scalar_subquery() > literal_column("0", Integer)


def _take(*conditions: ColumnElement[bool]) -> Any:
    given = select(
        bindparam("idempotency_key", type_=Text), bindparam("idempotency_digest", type_=LargeBinary)
    )
    return (
        insert(_keys)
        .from_select(["key", "digest"], given.where(*conditions))
        .on_conflict_do_nothing()
        .returning(literal_column("1"))
    )


@cache
def take() -> Any:
    """Take a key."""
    return _take()


@cache
def find() -> Any:
    """What was done under a key."""
    key = bindparam("idempotency_key", type_=Text)
    return on_primary(select(_keys.c.digest).where(_keys.c.key == key))


@cache
def prune() -> Delete:
    """Delete old keys, a batch; those that others hold are not old."""
    age = cast(bindparam("older_than"), Interval)
    oldest = (
        select(_keys.c.key)
        .where(_keys.c.made_at < func.now() - age)
        .order_by(_keys.c.made_at)
        .limit(literal_column(str(_PRUNED_ROWS)))
    )

    def of(rows: Select[Any]) -> Delete:
        old = rows.cte("_old").prefix_with("MATERIALIZED")
        return delete(_keys).where(_keys.c.key == old.c.key)

    return or_on_citus(of(oldest.with_for_update(skip_locked=True)), lambda: of(oldest))


async def was_done(executor: Executor, claim: Claim | None) -> bool:
    """Whether the key of a call that changed nothing is there already.

    Raises:
        IdempotencyKeyReusedError: It is, of another call.
    """
    if claim is None:
        return False
    rows = (await executor.run(find(), {"idempotency_key": claim.key})).rows
    if rows and rows[0][0] != claim.digest:
        raise IdempotencyKeyReusedError(
            f"The idempotency key {shown(claim.key)} was used for another call, or with other "
            "arguments; nothing was changed. Give each call a key of its own."
        )
    return bool(rows)


@observed("idempotency", writes=("claim", "prune"))
class IdempotencyRepository:
    """The keys of all calls; one is of one call, whatever the method, learner or node."""

    def __init__(self, executor: Executor, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self._executor = executor
        self._subject = Subject(IdempotencyKey.__tablename__, limits.slow_call_seconds)

    async def claim(self, key: str) -> bool:
        """Take a key for what this unit of work does, which then does nothing if it was taken.

        Whoever takes the same key at the same time waits until this transaction has ended. By
        itself, a call takes the key for good, whatever happens next: use it in a unit of work, or
        `Database.run(work, idempotency_key=)`, which does.

        Returns:
            Whether the key is new.

        Raises:
            InvalidInputError: The key is no text, or too long.
            IdempotencyKeyReusedError: A method's call has it.
        """
        claim = check_claim(key, ["claim"])
        if (await self._executor.run(take(), claim.params)).rows:
            return True
        return not await was_done(self._executor, claim)

    async def prune(self, *, older_than: float | timedelta = KEPT) -> int:
        """Forget old keys, in batches: a call that is repeated later counts again.

        Args:
            older_than: In seconds.

        Returns:
            How many there were.

        Raises:
            InvalidInputError: `older_than` is no time, or not positive.
        """
        seconds = validation.check_seconds(older_than, name="older_than")
        params = {"older_than": timedelta(seconds=min(seconds, _LONGEST_SECONDS))}
        count = 0
        while True:
            pruned = (await self._executor.run(prune(), params)).rowcount
            count += pruned
            if pruned < _PRUNED_ROWS:
                return count


_LONGEST_SECONDS: Final = 1e10  # some 300 years; no key is older
