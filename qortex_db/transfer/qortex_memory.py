"""What qortex learned and felt, from its SQLite databases: factors, edges, and arms' states."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import and_, bindparam, cast, column, or_, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert

from qortex_db.errors import InvalidInputError, NotFoundError
from qortex_db.models import InteroceptionEdge, InteroceptionFactor, LearningArmState
from qortex_db.repositories.checkpoints import CheckpointRepository
from qortex_db.repositories.halving import by_halves
from qortex_db.sql import Text, func
from qortex_db.transfer.source import SourceReject
from qortex_db.transfer.sources.qortex_sqlite import opened
from qortex_db.transfer.sources.threads import OneThread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qortex_db.database import Database
    from qortex_db.errors import QortexDbError
    from qortex_db.uow import UnitOfWork

INTEROCEPTION: Final = "interoception.db"
LEARNING: Final = "learning"
_BATCH_ROWS: Final = 1_000


class _Kind(NamedTuple):
    """Where the rows of a model come from: the columns of both, in the order of the query."""

    columns: tuple[str, ...]
    rows: str
    counted: str
    keys: int = 2


_KINDS: Final[Mapping[Any, _Kind]] = {
    InteroceptionFactor: _Kind(
        ("node_id", "weight", "updated_at"),
        "SELECT node_id, weight, updated_at FROM teleportation_factors "
        "WHERE node_id > ? ORDER BY node_id LIMIT ?",
        "SELECT count(*) FROM teleportation_factors",
        keys=1,
    ),
    InteroceptionEdge: _Kind(
        ("src_id", "tgt_id", "hit_count", "scores", "last_seen"),
        "SELECT src_id, tgt_id, hit_count, scores, last_seen FROM edge_buffer "
        "WHERE (src_id, tgt_id) > (?, ?) ORDER BY src_id, tgt_id LIMIT ?",
        "SELECT count(*) FROM edge_buffer",
    ),
    LearningArmState: _Kind(
        (
            *("learner_name", "context_hash", "arm_id", "alpha", "beta", "pulls"),
            *("total_reward", "last_updated"),
        ),
        "SELECT context_hash, arm_id, alpha, beta, pulls, total_reward, last_updated "
        "FROM arm_states WHERE (context_hash, arm_id) > (?, ?) "
        "ORDER BY context_hash, arm_id LIMIT ?",
        "SELECT count(*) FROM arm_states",
    ),
}


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """One of qortex's tables, and what came of its rows.

    Attributes:
        source: Its file.
        into: The table here.
        rows: How many it has.
        read: How many of them were read.
        written: How many of them changed something.
        rejects: Those that were no good, such as a posterior that is not positive.
        differing: The keys of rows that are not here as they are there.
    """

    source: str
    into: str
    rows: int
    read: int
    written: int
    rejects: Sequence[SourceReject]
    differing: Sequence[str]

    @property
    def is_good(self) -> bool:
        """Whether all rows are here, as they are there."""
        return self.read == self.rows and not (self.rejects or self.differing)


async def import_qortex_memory(database: Database, folder: str) -> list[MemoryPart]:
    """Bring factors, edges and arms' states of the folder of qortex's memory, as ~/.qortex.

    A row that is here already is written as it is there. What is no date there is no time here.
    Its vectors are the source `qortex-sqlite` of `import_collection`.

    Raises:
        NotFoundError: There is neither `interoception.db` nor a database of a learner.
    """
    thread = OneThread()
    try:
        parts = await thread.run(_parts, folder)
        return [await _import(database, thread, *part) for part in parts]
    finally:
        thread.close()


def _parts(location: str) -> list[tuple[Path, Any]]:
    folder = Path(location).expanduser().resolve()
    feelings = folder / INTEROCEPTION
    found: list[tuple[Path, Any]] = []
    if feelings.is_file():
        found += [(feelings, InteroceptionFactor), (feelings, InteroceptionEdge)]
    found += [(each, LearningArmState) for each in sorted((folder / LEARNING).glob("*.db"))]
    if not found:
        raise NotFoundError(f"{folder} has neither {INTEROCEPTION} nor {LEARNING}/*.db.")
    return found


async def _import(database: Database, thread: OneThread, path: Path, model: Any) -> MemoryPart:
    table = model.__table__
    keys = _KINDS[model].keys
    work = f"import qortex-sqlite {path} into {table.name}"
    async with database.unit_of_work() as uow:
        progress = await CheckpointRepository(uow.executor).begin(work)
    rejects: list[SourceReject] = []
    is_last = False
    while not is_last:
        after = progress.position or [""] * keys
        read = await thread.run(_read, path, _KINDS[model].rows, (*after, _BATCH_ROWS))
        is_last = len(read) < _BATCH_ROWS
        rows = [_values(model, path.stem, row) for row in read]
        async with database.unit_of_work() as uow:
            refused: list[SourceReject] = []
            written = await _store(uow, model, rows, refused)
            progress = await CheckpointRepository(uow.executor).advance(
                progress,
                list(read[-1][:keys]) if read else after,
                read=len(rows),
                written=written,
                rejected=len(refused),
                is_finished=is_last,
            )
        rejects += refused
    differing = await _differing(database, thread, path, model, {each.where for each in rejects})
    ((count,),) = await thread.run(_read, path, _KINDS[model].counted, ())
    return MemoryPart(
        str(path),
        table.name,
        count,
        progress.rows_read,
        progress.rows_written,
        rejects,
        differing,
    )


def _read(path: Path, query: str, given: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    try:
        with closing(opened(path)) as connection:
            return connection.execute(query, given).fetchall()
    except sqlite3.DatabaseError as error:
        raise InvalidInputError(f"{path} is no database of qortex's ({error}).") from error


def _values(model: Any, learner: str, row: Sequence[Any]) -> dict[str, Any]:
    """A row of SQLite's by our columns."""
    *given, when = row
    values: Sequence[Any] = given
    if model is InteroceptionEdge:
        *first, scores = given
        values = [*first, _scores(scores)]
    if model is LearningArmState:
        values = [learner, *given]
    names = _KINDS[model].columns
    return dict(zip(names, [*values, _time(when)], strict=True))


def _time(given: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(given)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _scores(given: Any) -> str:
    """As qortex reads them: what is no list is an empty one."""
    try:
        found = json.loads(given)
    except (TypeError, ValueError):
        return "[]"
    return json.dumps(found) if isinstance(found, list) else "[]"


async def _store(
    uow: UnitOfWork, model: Any, rows: Sequence[dict[str, Any]], rejects: list[SourceReject]
) -> int:
    """Write rows, and put aside those that the server refuses; how many changed something."""
    executor = uow.executor.of(model)

    async def write(some: Sequence[dict[str, Any]]) -> int:
        given = {name: [row[name] for row in some] for name in _KINDS[model].columns}
        return len((await executor.run(_upsert(model), given)).rows)

    def put_aside(row: dict[str, Any], error: QortexDbError) -> None:
        rejects.append(SourceReject(_key(model, row), str(error)))

    return sum(await by_halves(executor, rows, write, put_aside))


@cache
def _upsert(model: Any) -> Any:
    table = model.__table__
    names = _KINDS[model].columns
    given = _given(table, names)
    statement = insert(table).from_select(names, given)
    keys = [each.name for each in table.primary_key.columns]
    changed = {name: statement.excluded[name] for name in names if name not in keys}
    differs = or_(*(table.c[name].is_distinct_from(value) for name, value in changed.items()))
    return statement.on_conflict_do_update(
        index_elements=keys, set_=changed, where=differs
    ).returning(table.c[keys[0]])


def _given(table: Any, names: Sequence[str]) -> Any:
    """The rows that are given, an array for each column; JSON goes as text."""
    columns = [table.c[name] for name in names]
    types = [Text() if isinstance(each.type, JSONB) else each.type for each in columns]
    arrays = [bindparam(name, type_=ARRAY(kind)) for name, kind in zip(names, types, strict=True)]
    shape = [column(name, kind) for name, kind in zip(names, types, strict=True)]
    rows = func.unnest(*arrays).table_valued(*shape, name="_given").render_derived()
    return select(
        *(
            cast(rows.c[each.name], JSONB) if isinstance(each.type, JSONB) else rows.c[each.name]
            for each in columns
        )
    )


@cache
def _same(model: Any) -> Any:
    """The keys of those that are here as they are given."""
    table = model.__table__
    names = _KINDS[model].columns
    given = _given(table, names).subquery("_wanted")
    keys = [each.name for each in table.primary_key.columns]
    values = [name for name in names if name not in keys]
    return (
        select(*(table.c[name] for name in keys))
        .select_from(table)
        .join(given, and_(*(table.c[name] == given.c[name] for name in keys)))
        .where(*(table.c[name].is_not_distinct_from(given.c[name]) for name in values))
    )


async def _differing(
    database: Database, thread: OneThread, path: Path, model: Any, refused: set[str]
) -> list[str]:
    """The keys of rows that are not here as they are there."""
    table = model.__table__
    keys = [each.name for each in table.primary_key.columns]
    after: Sequence[Any] = [""] * _KINDS[model].keys
    found: list[str] = []
    while True:
        read = await thread.run(_read, path, _KINDS[model].rows, (*after, _BATCH_ROWS))
        rows = [_values(model, path.stem, row) for row in read]
        if rows:
            given = {name: [row[name] for row in rows] for name in _KINDS[model].columns}
            async with database.unit_of_work() as uow:
                same = (await uow.executor.of(model).run(_same(model), given)).rows
            here = {tuple(each) for each in same}
            found += [
                _key(model, row)
                for row in rows
                if tuple(row[name] for name in keys) not in here and _key(model, row) not in refused
            ]
            after = read[-1][: len(after)]
        if len(read) < _BATCH_ROWS:
            return found


def _key(model: Any, row: dict[str, Any]) -> str:
    return " ".join(str(row[each.name]) for each in model.__table__.primary_key.columns)
