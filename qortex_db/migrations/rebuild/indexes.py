"""Vector indexes taken out of the way of a load and put back as they were, or built anew."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final

from qortex_db.checks import check_whole
from qortex_db.errors import InvalidInputError
from qortex_db.migrations.connection import (
    migration_engine,
    migration_lock,
    refuse_open_schemas,
)
from qortex_db.migrations.rebuild.building import (
    WORKERS,
    IndexProgress,
    Rebuild,
    RebuiltIndex,
)
from qortex_db.migrations.rebuild.owned_table import OwnedTable, find_table
from qortex_db.migrations.rebuild.partitioned import Partitioned
from qortex_db.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_KB: Final = {"kB": 1, "MB": 1024, "GB": 1024**2, "TB": 1024**3}
_MAX_WORKERS: Final = 1024


async def rebuild_index(
    settings: Settings | None = None,
    *,
    table: str = "qortex_vectors",
    load: Callable[[], Awaitable[object]] | None = None,
    maintenance_work_mem: str | None = None,
    parallel_workers: int | None = None,
    on_progress: Callable[[IndexProgress], object] | None = None,
    embedded: bool = False,
) -> list[RebuiltIndex]:
    """Build a table's vector indexes anew, in its owner's role; with a load, after that.

    With `load` they are dropped, it is awaited, and they are built as they were: definition,
    tablespace and comment. If it fails or is cancelled, they are built all the same before its
    error goes on. If the build fails or is cancelled, or the process dies, what they were stays
    written in the database, and the next call builds them.

    Without `load` they are reindexed, the invalid ones too: searches use the old one until the new
    one is there, and an interruption leaves the old one in use.

    Readers and writers of the table are never blocked. Transactions open on it are waited for.

    Of a partitioned table each partition's are rebuilt, one after another, and partitions that lack
    one get theirs. To be dropped for a load, its indexes take the table for a moment: that is
    tried, half a second at a time.

    Args:
        settings: Which server and schema; by default the environment's.
        table: Its name, without a schema.
        load: What to await while there is no index: `ingest`, or another process.
        maintenance_work_mem: As "2GB"; by default enough for the graph, up to 1 GB, or the server's
            own where that is more.
        parallel_workers: 0 to 1,024, beside the building process; by default the server's own.
        on_progress: Called, and awaited if need be, about three times a second.
        embedded: Use the embedded server, which is never started unasked.

    Returns:
        The indexes; first those that an earlier call had left to build.

    Raises:
        NotFoundError: There is no such table, or no vector index on it.
        InvalidInputError: An option can't be honoured; nothing was done.
        LockTimeoutError: Another rebuild or migration goes on, or a transaction keeps the table.
        PermissionDeniedError: The role is not the table's owner, nor a member of it.
    """
    settings = settings or Settings()
    options = _options(maintenance_work_mem, parallel_workers)
    failure: BaseException | None = None
    async with (
        migration_engine(settings, embedded=embedded) as engine,
        migration_lock(engine, timeout_seconds=settings.migration_timeout_seconds),
    ):
        try:
            refuse_open_schemas(engine.sync_engine)
            found = await find_table(engine, settings.db_schema, table)
            of = functools.partial(Rebuild, options=options, on_progress=on_progress)
            whole = Partitioned(found, of) if found.is_partitioned else of(found)
            rebuilt = await whole.run(load)
        except BaseException as error:  # noqa: BLE001 - raised below
            failure = error  # the engine would take errors of the load for the server's
    if failure is not None:
        raise failure
    return rebuilt


async def restore_pending(
    table: OwnedTable, on_progress: Callable[[IndexProgress], object] | None = None
) -> list[RebuiltIndex]:
    """Build only what waits to be restored on a table, under the migration lock."""
    return await Rebuild(table, {}, on_progress).restore()


def _options(memory: str | None, workers: int | None) -> dict[str, str]:
    options = {}
    if memory is not None:
        parts = re.fullmatch(r"([0-9]{1,10}) ?(kB|MB|GB|TB)", memory)
        kilobytes = int(parts[1]) * _KB[parts[2]] if parts else 0
        if not _KB["MB"] <= kilobytes < 2 * _KB["TB"]:
            raise InvalidInputError(
                'maintenance_work_mem has to be "1MB" to "2047GB", with kB, MB, GB or TB.'
            )
        options["maintenance_work_mem"] = f"{kilobytes}kB"
    if workers is not None:
        options[WORKERS] = str(check_whole(workers, 0, _MAX_WORKERS, name="parallel_workers"))
    return options
