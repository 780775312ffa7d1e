"""The replicas that reads go to: standbys of the primary's, near to it, that cancel little."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qortex_db.doctor.facts import Unread
from qortex_db.doctor.finding import Finding, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qortex_db.doctor.facts import Expected, Replica, Standby

MOST_LAG_SECONDS: Final = 10.0
_FEEDBACK: Final = "hot_standby_feedback = on there"


def check_replica(
    name: str, replica: Replica, revisions: Sequence[str] | Unread | None, expected: Expected
) -> Iterator[Finding]:
    """What is wrong with one of them; its name is its place among them.

    Args:
        revisions: Of the primary.
    """
    where, standby, is_reached = replica
    if isinstance(standby, Unread):
        if is_reached:
            yield Finding(name, "unknown", f"{where} was not checked: {standby.reason}", standby.do)
        else:
            do = (
                "Look at the server, or take it out of QORTEX_DB_REPLICA_DSNS: meanwhile its reads "
            )
            do += "go to the others and to the primary."
            yield Finding(name, "wrong", f"{where} was not reached: {standby.reason}", do)
        return
    if standby.is_primary:
        do = "Name a standby in QORTEX_DB_REPLICA_DSNS, or unset it."
        said = f"{where} is the primary itself, which reads are to be taken from."
        yield Finding(name, "warning", said, do)
        return
    if not (standby.is_standby and standby.is_copy):
        what = "is no standby" if standby.is_copy else "is no standby of the primary's"
        do = "Take it out of QORTEX_DB_REPLICA_DSNS: what it has is another server's, or was "
        do += "promoted and goes its own way."
        yield Finding(name, "wrong", f"{where} {what}.", do)
        return
    yield _lag(name, where, standby)
    yield from _revision(name, where, standby, revisions)
    yield from _conflicts(name, where, standby, expected)


def _lag(name: str, where: str, standby: Standby) -> Finding:
    age = standby.behind_seconds
    if standby.behind_bytes:
        last = (
            "it replayed none yet" if age is None else f"its last transaction is {age:,.0f} s old"
        )
        said = f"{where} is a standby, {size(standby.behind_bytes)} behind: {last}"
    else:
        said = f"{where} is a standby, 0 kB and {age or 0:,.1f} s behind"
    if standby.is_paused:
        do = "SELECT pg_wal_replay_resume() there, as a superuser."
        return Finding(name, "warning", f"{said}, and its replay is paused.", do)
    if standby.behind_bytes and (age is None or age > MOST_LAG_SECONDS):
        do = (
            "Look at its pg_stat_wal_receiver and at the primary's pg_stat_replication: reads that "
        )
        do += "have to see a write go to the primary."
        if standby.delay_seconds is None:
            do += " With max_standby_streaming_delay = -1, a long read there holds it up."
        return Finding(name, "warning", f"{said}.", do)
    return Finding(name, "good", f"{said}.")


def _revision(
    name: str, where: str, standby: Standby, revisions: Sequence[str] | Unread | None
) -> Iterator[Finding]:
    own = standby.revisions
    if isinstance(own, Unread):
        yield Finding(name, "unknown", f"{where}: its schema was not read: {own.reason}", own.do)
    elif not isinstance(revisions, Unread) and own != revisions:
        at, primary = (", ".join(each or ()) or "none" for each in (own, revisions))
        said = f"{where} has the schema at revision {at}, and the primary at {primary}."
        yield Finding(name, "warning", said, "Wait until it has replayed what migrated it.")


def _conflicts(name: str, where: str, standby: Standby, expected: Expected) -> Iterator[Finding]:
    delay, most = standby.delay_seconds, expected.timeout_seconds
    if standby.conflicts:
        said = f"{where} cancelled {standby.conflicts:,} statements that were in its replay's way, "
        said += "since its statistics began (SELECT pg_stat_reset() there begins them anew)"
        do = "A longer max_standby_streaming_delay there makes that rarer."
        if not standby.has_feedback:
            do = f"{_FEEDBACK} makes that rare; the primary keeps dead rows longer then."
        yield Finding(name, "warning", f"{said}.", do)
    elif not standby.has_feedback and delay is not None and (most is None or most > delay):
        said = f"{where} cancels what is in its replay's way for {delay:,.0f} s."
        yield Finding(name, "good", said, f"{_FEEDBACK} makes that rare, for long searches too.")
