"""Write docs/operations/grants.md: what each method has to be granted, measured.

Every call of docs/statement_calls.py is made by a role that has nothing at first, and is given no
more than what lets it go on. By itself this starts the embedded server in a temporary folder.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg
from statement_calls import DEFAULT, DIMENSIONS, ENCRYPTION_KEYS, SECTIONS, Base

from qortex_db import (
    ConflictError,
    Database,
    NotFoundError,
    PermissionDeniedError,
    Settings,
    embedded,
    migrations,
)
from qortex_db.uow import Repositories

if TYPE_CHECKING:
    from collections.abc import Iterator

    from statement_calls import Section

Grants: TypeAlias = dict[str, frozenset[str]]
"""The rights on each table."""

PAGE = Path(__file__).parent / "operations/grants.md"
ROLE = "qortex_db_measured"
RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
SETS = [frozenset(some) for size in range(5) for some in itertools.combinations(RIGHTS, size)]
TWO_MODELS = "Two models"
# A host's tables are its own matter; what only they have is asked of one of them. Not switch_to,
# whose statement is a block of code: its errors name no table.
ONLY = {"Encrypted values": {"rotate_keys"}, TWO_MODELS: {"changeover", "reembed"}}
UNENCRYPTED = {"rotate_keys"}  # of the default table: it is refused
# Who can't read it is not told that there are two models, and follows none.
TOLD: Grants = {"qortex_db_changeovers": frozenset({"SELECT"})}
REPOSITORIES = ("vectors", "factors", "edges", "embeddings", "arms", "idempotency")
ITS_TABLE = ("qortex_vectors", "changing", "sealed")
"""What a collection's methods are about."""
HISTORY = "with a history"


def sections() -> Iterator[tuple[Section, dict[str, Any]]]:
    """Those that are measured, with their calls by method and form."""
    for section in SECTIONS:
        if section.title in ONLY or section.name in REPOSITORIES:
            wanted = ONLY.get(section.title, section.calls.keys() - UNENCRYPTED)
            yield section, {one: forms for one, forms in section.calls.items() if one in wanted}


def _refused_table(error: BaseException) -> str:
    """The table of which PostgreSQL says that it is denied."""
    cause: BaseException | None = error
    while cause is not None:
        if found := re.search(r"permission denied for table (\w+)", str(cause)):
            return found[1]
        cause = cause.__cause__ or cause.__context__
    raise error


class Measured:
    """What a role is granted until a call goes through.

    Args:
        connection: For grants.
        as_role: The DSN of who calls.
    """

    def __init__(self, connection: Any, as_role: str) -> None:
        self._connection = connection
        self._settings = Settings(dsn=as_role, pool_min_size=1, pool_max_size=1)

    async def least(self, section: Section, call: Any) -> Grants:
        """The least that a call needs."""
        await self._connection.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {ROLE}")
        granted = dict(TOLD) if section.title == TWO_MODELS else {}
        for told, rights in granted.items():
            await self._grant(told, rights)
        table, more = "", iter(SETS)
        # A new one for each call, which knows nothing from when it had other rights.
        async with Database.connect(self._settings) as db:
            while (refused := await _refused(db, section, call)) is not None:
                if refused != table:
                    table, had = refused, granted.get(refused, frozenset())
                    more = iter([rights for rights in SETS if rights > had])
                granted[table] = next(more)
                await self._grant(table, granted[table])
        return granted

    async def _grant(self, table: str, rights: frozenset[str]) -> None:
        await self._connection.execute(
            f"REVOKE ALL ON {table} FROM {ROLE}; GRANT {', '.join(rights)} ON {table} TO {ROLE}"
        )


async def _refused(db: Database, section: Section, call: Any) -> str | None:
    """Make a call; the table that it stops at."""
    made = Repositories(
        db.executor, learning_history=section.history, encryption_keys=ENCRYPTION_KEYS
    )
    try:
        await call(section.repository(made))
    except PermissionDeniedError as error:
        return _refused_table(error)
    except (NotFoundError, ConflictError):
        return None  # it was looked for: an example that is not there, a row that is
    return None


async def measure(dsn: str, as_role: str) -> dict[str, dict[str, Grants]]:
    """The least of each call, by method and form.

    Args:
        dsn: A migrated database with nothing in it.
        as_role: The same, by the role that is made here.
    """
    found: dict[str, dict[str, Grants]] = defaultdict(dict)
    async with Database.connect(dsn, encryption_keys=ENCRYPTION_KEYS) as admin:
        async with admin.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(f"DROP ROLE IF EXISTS {ROLE}; CREATE ROLE {ROLE} LOGIN")
            measured = Measured(connection, as_role)
            for section, methods in sections():
                name = section.name if section.name in REPOSITORIES else "vectors"
                for method, forms in methods.items():
                    for form, call in forms.items():
                        if section.prelude is not None:
                            await section.prelude(admin)
                        said = [form] * (form != DEFAULT) + [HISTORY] * section.history
                        least = await measured.least(section, call)
                        found[f"{name}.{method}"][", ".join(said) or DEFAULT] = least
            await connection.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")
        finally:
            await connection.close()
    return found


def _words(grants: Grants) -> str:
    """The cells of a row."""
    named: Grants = {}
    for table, rights in grants.items():
        shown = "its table" if table in ITS_TABLE else f"`{table}`"
        named[shown] = named.get(shown, frozenset()) | rights
    return "; ".join(
        f"{', '.join(f'`{one}`' for one in RIGHTS if one in rights)} on {table}"
        for table, rights in sorted(named.items())
    )


def rows(found: dict[str, dict[str, Grants]]) -> dict[str, list[str]]:
    """The calls by what they need; a form by itself where it needs something else."""
    needing: dict[str, list[str]] = defaultdict(list)
    for method, forms in found.items():
        words = {form: _words(grants) for form, grants in forms.items()}
        first = next(iter(words.values()))
        needing[first].append(f"`{method}`")
        others: dict[str, list[str]] = defaultdict(list)
        for form, said in words.items():
            if said != first:
                others[said].append(form)
        with_history = [form for form in forms if HISTORY in form]
        for said, some in others.items():
            shown = HISTORY if some == with_history else "; ".join(some)
            needing[said].append(f"`{method}` ({shown})")
    return needing


def render(found: dict[str, dict[str, Grants]]) -> str:
    """The text."""
    needing = rows(found)
    order = sorted(needing, key=lambda said: (said.count(";"), len(said), said))
    lines = [f"| {said or 'nothing'} | {', '.join(needing[said])} |\n" for said in order]
    return "".join(["| granted | methods |\n|---|---|\n", *lines])


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory(prefix="qx-") as folder:
        Path(folder).chmod(0o755)  # the server has a user of its own
        server = embedded.start(Path(folder) / "data")
        try:
            dsn = server.dsn()
            asyncio.run(migrations.upgrade(Settings(dsn=dsn, dimensions=DIMENSIONS)))
            as_role = re.sub(r"//[^@/]*@", f"//{ROLE}@", dsn)
            PAGE.write_text(render(asyncio.run(measure(dsn, as_role))))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
