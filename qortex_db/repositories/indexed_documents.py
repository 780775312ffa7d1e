"""What indexes of frameworks last wrote, and when: each index is a namespace."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    DateTime,
    Double,
    bindparam,
    cast,
    column,
    delete,
    extract,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import insert

from qortex_db.checks import check_number, check_whole
from qortex_db.engine import on_primary
from qortex_db.errors import InvalidInputError
from qortex_db.models import IndexedDocument
from qortex_db.repositories import validation
from qortex_db.repositories.locking import locked_in_key_order
from qortex_db.sql import Text, func

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qortex_db.engine import Executor

_MAX_ROWS: Final = 2**31 - 1
_LAST: Final = 253_402_300_799.0  # the end of the year 9999
_TIME: Final = DateTime(timezone=True)
_documents: Any = IndexedDocument.__table__


@cache
def clock() -> Any:
    """The server's clock, in seconds since 1970."""
    return on_primary(select(cast(extract("epoch", func.clock_timestamp()), Double)))


@cache
def record(*, with_groups: bool) -> Any:
    """Note documents as indexed now, unless now is before `at_least`; without groups, keep those.

    A statement that waited for another of the same document does not turn its time back.
    """
    given: Any = (
        func.unnest(cast(bindparam("keys"), ARRAY(Text)), cast(bindparam("groups"), ARRAY(Text)))
        .table_valued(column("key", Text), column("group_id", Text))
        .render_derived(name="given")
    )
    at_least: Any = bindparam("at_least", type_=_TIME)
    # The function is volatile: by a CTE it is asked once.
    now = select(func.clock_timestamp().label("now")).cte("_clock").prefix_with("MATERIALIZED")
    rows = (
        select(_namespace(), given.c.key, given.c.group_id, now.c.now)
        .select_from(given.join(now, literal_column("true")))
        .where(or_(at_least.is_(None), now.c.now >= at_least))
    )
    new = insert(_documents).from_select(["namespace", "key", "group_id", "updated_at"], rows)
    changed: dict[str, Any] = {
        "updated_at": func.greatest(_documents.c.updated_at, new.excluded.updated_at)
    }
    if with_groups:
        changed["group_id"] = new.excluded.group_id
    return new.on_conflict_do_update(index_elements=["namespace", "key"], set_=changed)


@cache
def find() -> Any:
    """Which of some keys are recorded."""
    return on_primary(select(_documents.c.key).where(*_listed()))


@cache
def keys_of(*, before: bool, after: bool, groups: bool, limited: bool) -> Any:
    """The keys of a namespace, those indexed longest ago first."""
    statement = select(_documents.c.key).where(_documents.c.namespace == _namespace())
    if before:
        statement = statement.where(_documents.c.updated_at < bindparam("before", type_=_TIME))
    if after:
        statement = statement.where(_documents.c.updated_at > bindparam("after", type_=_TIME))
    if groups:
        listed = cast(bindparam("groups"), ARRAY(Text))
        statement = statement.where(_documents.c.group_id == func.any(listed))
    statement = statement.order_by(_documents.c.updated_at, _documents.c.key)
    if limited:
        statement = statement.limit(bindparam("most", type_=BigInteger))
    return on_primary(statement)


@cache
def forget() -> Any:
    """Delete keys of a namespace."""
    own = [_documents.c.namespace, _documents.c.key]
    keys = locked_in_key_order(own, *_listed())
    return delete(_documents).where(*(each == keys.c[each.name] for each in own))


def _namespace() -> Any:
    return bindparam("of_namespace", type_=Text)


def _listed() -> Sequence[Any]:
    listed = cast(bindparam("keys"), ARRAY(Text))
    return _documents.c.namespace == _namespace(), _documents.c.key == func.any(listed)


class IndexedDocumentRepository:
    """The documents of one index.

    Args:
        namespace: The index's name, text of 1 to 1,024 bytes.
    """

    def __init__(self, executor: Executor, namespace: str) -> None:
        self._executor = executor
        self._own = {"of_namespace": validation.check_id(namespace, name="namespace")}

    async def clock(self) -> float:
        """The server's clock, in seconds since 1970, to the microsecond."""
        seconds: float = (await self._executor.run(clock(), {})).rows[0][0]
        return seconds

    async def record(
        self,
        keys: Iterable[str],
        *,
        groups: Iterable[str | None] | None = None,
        at_least: float | None = None,
    ) -> None:
        """Note that documents were indexed now.

        Args:
            keys: Of the same one twice, the last counts.
            groups: The source of each; None leaves those that are recorded.
            at_least: A time of the server's clock, which has to be past.

        Raises:
            InvalidInputError: The clock is before `at_least`; nothing was recorded.
        """
        listed = validation.check_list(keys, name="keys", of="list of keys")
        validation.check_each_id(listed, name="keys")
        of_key: dict[str, str | None] = dict.fromkeys(listed)
        if groups is not None:
            given = validation.check_list(groups, name="group_ids", of="list of ids")
            if len(given) != len(listed):
                raise InvalidInputError(
                    f"There are {len(listed)} keys and {len(given)} group_ids; they must match."
                )
            for i, group in enumerate(given):
                if group is not None:
                    validation.check_id(group, name=f"group_ids[{i}]")
            of_key = dict(zip(listed, given, strict=True))
        time = None if at_least is None else _moment(at_least, name="time_at_least")
        if not of_key:
            return
        order = sorted(of_key)
        params = {"keys": order, "groups": [of_key[key] for key in order], "at_least": time}
        statement = record(with_groups=groups is not None)
        if not (await self._executor.run(statement, self._own | params)).rowcount:
            raise InvalidInputError(
                "time_at_least is after the server's clock, which has gone back or is another "
                "server's: what is indexed now would count as old. Nothing was recorded; begin "
                "again when the clock is past it."
            )

    async def exist(self, keys: Iterable[str]) -> list[bool]:
        """Whether each is recorded, in their order."""
        listed = validation.check_list(keys, name="keys", of="list of keys")
        if not (distinct := validation.check_ids(listed, name="keys")):
            return []
        found = await self._executor.run(find(), self._own | {"keys": distinct})
        known = {row[0] for row in found.rows}
        return [key in known for key in listed]

    async def keys(
        self,
        *,
        before: float | None = None,
        after: float | None = None,
        groups: Iterable[str] | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """The keys of documents, those indexed longest ago first.

        Args:
            before: Those indexed before this time of the server's clock.
            after: Those indexed after it.
            groups: Those of these sources; of none, where there are none.
        """
        params: dict[str, Any] = dict(self._own)
        if before is not None:
            params["before"] = _moment(before, name="before")
        if after is not None:
            params["after"] = _moment(after, name="after")
        if groups is not None:
            params["groups"] = validation.check_ids(groups, name="group_ids")
        if limit is not None:
            params["most"] = check_whole(limit, 1, _MAX_ROWS, name="limit")
        statement = keys_of(
            before=before is not None,
            after=after is not None,
            groups=groups is not None,
            limited=limit is not None,
        )
        return [row[0] for row in (await self._executor.run(statement, params)).rows]

    async def forget(self, keys: Iterable[str]) -> None:
        """Delete the records of keys; those that are not there are none to delete."""
        if listed := validation.check_ids(keys, name="keys"):
            await self._executor.run(forget(), self._own | {"keys": listed})


def _moment(value: object, *, name: str) -> datetime:
    return datetime.fromtimestamp(check_number(value, name=name, low=0, high=_LAST), UTC)
