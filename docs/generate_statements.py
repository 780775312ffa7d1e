"""Write docs/statements.md by running every method on a migrated database.

By itself it starts the embedded server in a temporary folder.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import pkgutil
import re
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sql_layout import lay_out
from sqlalchemy import Executable, TextClause
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.sql.functions import FunctionElement
from statement_calls import (
    DEFAULT,
    DIMENSIONS,
    ENCRYPTION_KEYS,
    FILTERS,
    INDEXED_FILTERS,
    SECTIONS,
    Base,
    Indexed,
)

import qortex_db
from qortex_db import Database, QortexVector, Settings, embedded, migrations
from qortex_db.engine import Fetched
from qortex_db.engine.citus import on_citus
from qortex_db.repositories.interoception import factor_statements
from qortex_db.repositories.vectors import table_facts
from qortex_db.uow import Repositories

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from statement_calls import Section

HEAD = """---
tocdepth: 2
---

# Statements

The SQL of every statement that the package sends, by method and form. `docs/generate_statements.py`
writes this page by running each of them on a migrated database; the tests see that it is current
and that none is missing.

- The stores (`PgVectorIndex`, `PostgresInteroceptionStore`, `PostgresLearningStore`), `Learner` and
  the command line have no statements of their own: theirs are the repositories'.
- A statement is shown once, and referred to afterwards. Below each are its parameters in the order
  of `$1`, `$2` and so on: what a call gives by its name, a constant by its value.
- Before the first use of a vector, an engine looks up what its column holds, by
  [`vectors.dimensions`](#vectorsdimensions). The other entries leave that out.
- With a schema of its own, the names of the package's tables have it before them.

What a statement says of your data is parameters. These are in its text: paths into payloads, since
an index on an expression serves only a query that says exactly the same; languages of full text;
names of `large_namespaces`; how many queries, examples or removed paths there are; which columns a
batch gives; and the SQL that a model or a filter of yours is made of. SQLAlchemy writes an `IN`
over a list when it executes, a parameter for each value: of ours that is only the refresh below.
"""
TRANSACTIONS = """## What a transaction adds

A call by itself is sent as it stands: the server makes it a transaction of its own. Large upserts,
`ingest` and `edges.save` send one statement with many sets of parameters, between `BEGIN` and
`COMMIT`, in one round trip; where statements have a time limit, inside `WITH _written AS (…)`, with
a `set_config('statement_timeout', …, true)` that limits the next of them. A unit of work is
SQLAlchemy's session: `BEGIN` before the first statement, `COMMIT` or `ROLLBACK` at the end; in a
host's session `SAVEPOINT`, and `RELEASE SAVEPOINT` or `ROLLBACK TO SAVEPOINT`. Where objects of a
written table are loaded in that session, a `SELECT … WHERE (id) IN (…)` of each of their models
follows the statement.

## What is told beside a statement

With `consistency="session"` a write by itself gives `pg_current_xact_id()` as a last column, as
the first write of a unit of work gives `pg_current_xact_id_if_assigned()`; one that gives nothing
else is then counted inside `WITH _written AS (…)`. A read at a [replica](operations/replicas.md)
that has to have it is `SELECT …, _told FROM (SELECT … < pg_snapshot_xmin(pg_current_snapshot()) AS
_told) AS _seen LEFT OUTER JOIN LATERAL (SELECT …, true AS _is_row FROM (…) AS _read WHERE
_seen._told) AS _given ON true`; one on the primary, where the number of a write is not known,
likewise with `pg_snapshot_xmax(…)` and without the condition.
"""

ABOUT_CITUS = """Where the database has Citus, these are sent in the place of those above; the
others are the same. A search of a table whose rows lie on several nodes is preceded by `SET LOCAL`
of what the other form sets itself, and what takes several statements is one transaction."""

_SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|SET|CREATE|ALTER|LOCK)\b")
_DIALECT = asyncpg.dialect()
_LOOKUPS = {f"`vectors.dimensions`, {DEFAULT}", "`vectors.hybrid_search`, by meaning and words"}
"""What is looked up once is shown where it is first."""


class Recorder:
    """An executor that keeps what another one runs.

    Args:
        is_on_citus: Whether it takes the forms for Citus, with the rows of each table on several
            nodes: they are SQL that any server runs.
    """

    commits = True
    """What a unit of work refuses runs there too."""

    def __init__(self, executor: Any, *, is_on_citus: bool = False) -> None:
        self._executor = executor
        self._is_on_citus = is_on_citus
        self._facts: dict[str, Any] = {}
        self.statements: list[Executable] = []

    def begin(self) -> None:
        """Begin anew, and know nothing of the tables: no entry depends on the one before."""
        self._facts = {}
        self.statements = []

    def of(self, model: Any) -> Recorder:  # noqa: ARG002 - one engine has all
        """As the protocol's."""
        return self

    async def run(self, statement: Executable, params: Mapping[str, Any], **options: Any) -> Any:
        """As the protocol's."""
        if self._is_on_citus:
            statement = on_citus(statement)
            if statement in _OF_NODES:
                return _OF_NODES[statement]
            options.clear()  # what it would be told to the nodes before
        self.statements.append(statement)
        return await self._executor.run(statement, params, **options)

    async def run_all(self, statement: Executable, params: Iterable[Mapping[str, Any]]) -> int:
        """As the protocol's."""
        if self._is_on_citus:
            statement = on_citus(statement)
        self.statements.append(statement)
        count: int = await self._executor.run_all(statement, params)
        return count

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """As the protocol's."""
        block: AbstractAsyncContextManager[None] = self._executor.savepoint()
        return block

    @asynccontextmanager
    async def together(self) -> AsyncIterator[Recorder]:
        """As the protocol's."""
        yield self

    async def on_citus(self) -> bool:
        """As the protocol's."""
        return self._is_on_citus

    async def catalog(self) -> dict[str, Any]:
        """As the protocol's."""
        return self._facts

    def known(self) -> dict[str, Any]:
        """As the protocol's."""
        return self._facts

    def schema_of(self, declared: str | None) -> str | None:
        """As the protocol's."""
        schema: str | None = self._executor.schema_of(declared)
        return schema


_OF_NODES: Mapping[Executable, Fetched] = {
    table_facts.DISTRIBUTED: Fetched([("id", 3.0)], 1),
    factor_statements.ON_SEVERAL_NODES: Fetched([(False,)], 1),
}
"""What asks for Citus's own tables, and an answer."""


class Page:
    """The page as it grows.

    Attributes:
        shown: Where each statement was shown first, by its SQL.
        methods: Those that have an entry, as `vectors.search`.
        of_status: What `Database.status` sends.
        on_citus: What is sent where Citus is, by method and form.
    """

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}
        self.methods: set[str] = set()
        self.of_status: set[str] = set()
        self.on_citus: dict[tuple[str, str], list[Executable]] = {}
        self._contents: list[str] = []
        self._lines: list[str] = []

    def render(self) -> str:
        """The text."""
        return "\n".join([HEAD, *self._contents, "", TRANSACTIONS, *self._lines[1:]]) + "\n"

    def begin(self, title: str, about: str, headings: Mapping[str, str]) -> None:
        """Begin a section, with its line in the table of contents.

        Args:
            headings: Those of its entries, by what they are called there.
        """
        links = [f"[`{name}`](#{_anchor(heading)})" for name, heading in headings.items()]
        own = f"- [{title}](#{_anchor(title)})"
        self._contents.append(f"{own}: {', '.join(links)}" if links else own)
        self._lines += ["", f"## {title}", *(["", about] if about else [])]

    def head(self, heading: str) -> None:
        """Begin an entry."""
        self._lines += ["", f"### {heading}"]

    def add(self, form: str, at: str, statements: Sequence[Executable | str]) -> None:
        """Show statements, or say where they were."""
        self._lines += ["", f"**{form}**"]
        if not statements:
            self._lines += ["", "Nothing is sent."]
        for sql, statement in {sql_of(one): one for one in statements}.items():
            if sql in self.shown:
                self._lines += ["", f"As {self.shown[sql]}."]
                continue
            self.shown[sql] = at
            is_text = isinstance(statement, (str, TextClause))  # laid out where it is written
            self._show(inspect.cleandoc(sql) if is_text else lay_out(sql), statement)

    def add_clause(self, form: str, statement: Executable) -> None:
        """Show what a statement has after WHERE."""
        self._lines += ["", f"**{form}**"]
        sql = sql_of(statement)
        self.shown[sql] = form
        self._show(lay_out(sql).partition("WHERE ")[2] or "-- nothing", statement)

    def _show(self, text: str, statement: Executable | str) -> None:
        self._lines += ["", "```postgresql", text, "```"]
        if parameters := _parameters(statement):
            self._lines += ["", f"Parameters: {', '.join(parameters)}."]


def _anchor(heading: str) -> str:
    """As GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@functools.cache
def _compiled(statement: Any) -> Any:
    return statement.compile(dialect=_DIALECT)


def sql_of(statement: Executable | str) -> str:
    """What is sent."""
    text: str = statement if isinstance(statement, str) else _compiled(statement).string
    return text.strip()


def _parameters(statement: Executable | str) -> list[str]:
    if isinstance(statement, str):
        return []
    compiled = _compiled(statement)
    binds = [compiled.binds[name] for name in compiled.positiontup]
    return [f"`{bind.key}`" if bind.required else f"`{bind.value!r}`" for bind in binds]


async def make_page(dsn: str) -> Page:
    """The page, made on a migrated database that has nothing in it."""
    page = Page()
    settings = Settings(dsn=dsn, dimensions=DIMENSIONS)
    async with Database.connect(settings, encryption_keys=ENCRYPTION_KEYS) as db:
        async with db.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        recorder = Recorder(db.executor)
        for section in SECTIONS:
            await _add_section(page, section, db, recorder)
        await _add_filters(page, recorder)
        await _add_on_citus(page, db)
        executor = db.executor
        db._executor = recorder  # type: ignore[assignment] # noqa: SLF001 - nobody else wants to
        await _add_status(page, db, recorder)
        db._executor = executor  # type: ignore[assignment] # noqa: SLF001 - which can be closed
    _add_constants(page)
    return page


def repositories(executor: Any, *, history: bool = False) -> Repositories:
    """All of them, by an executor."""
    keys = ENCRYPTION_KEYS
    return Repositories(executor, learning_history=history, encryption_keys=keys)


async def _add_section(page: Page, section: Section, db: Database, recorder: Recorder) -> None:
    if section.prelude is not None:
        await section.prelude(db)
    repository = section.repository(repositories(recorder, history=section.history))
    suffix = ", with the history" if section.history else ""
    headings = {method: f"`{section.name}.{method}`{suffix}" for method in section.calls}
    page.begin(section.title, section.about, headings)
    for method, forms in section.calls.items():
        page.methods.add(f"{section.name}.{method}")
        page.head(headings[method])
        for form, call in forms.items():
            recorder.begin()
            await call(repository)
            found: list[Executable] = recorder.statements
            if method != "dimensions":
                found = [one for one in found if page.shown.get(sql_of(one)) not in _LOOKUPS]
            page.add(form, f"{headings[method]}, {form}", found)


async def _add_filters(page: Page, recorder: Recorder) -> None:
    about = "What stands after WHERE in whatever takes `where=`, here in `vectors.count`."
    page.begin("Filters", about, {})
    made = repositories(recorder)
    for model, filters in ((QortexVector, FILTERS), (Indexed, INDEXED_FILTERS)):
        for form, where in filters.items():
            recorder.begin()
            await made.collection(model).count(where=where)
            page.add_clause(form, recorder.statements[-1])


async def _forms_on_citus(db: Database) -> AsyncIterator[tuple[str, str, list[Executable]]]:
    """Every call by its method and form, with the statements that are sent where Citus is."""
    recorder = Recorder(db.executor, is_on_citus=True)
    for section in SECTIONS:
        if section.prelude is not None:
            await section.prelude(db)
        repository = section.repository(repositories(recorder, history=section.history))
        suffix = ", with the history" if section.history else ""
        for method, forms in section.calls.items():
            if method in ("switch_to", "reembed", "changeover"):  # triggers, which it has none of
                continue
            for form, call in forms.items():
                recorder.begin()
                await call(repository)
                yield f"`{section.name}.{method}`{suffix}", form, recorder.statements


async def _add_on_citus(page: Page, db: Database) -> None:
    page.begin("On Citus", ABOUT_CITUS, {})
    page.head("What is asked of Citus")
    page.add("once in a while for each table", "what is asked of Citus", [*_OF_NODES])
    last = ""
    async for method, form, statements in _forms_on_citus(db):
        page.on_citus[method, form] = statements
        own = [one for one in statements if sql_of(one) not in page.shown]
        if not own:
            continue
        if method != last:
            page.head(f"{method}, on Citus")
            last = method
        page.add(form, f"{method}, on Citus, {form}", own)


async def _add_status(page: Page, db: Database, recorder: Recorder) -> None:
    heading = "`Database.status`"
    page.begin("Database", "", {"status": heading})
    page.head(heading)
    recorder.begin()
    await db.status()
    page.of_status = set(map(sql_of, recorder.statements))
    page.add(DEFAULT, f"{heading}, {DEFAULT}", recorder.statements)


def _add_constants(page: Page) -> None:
    by_module: dict[str, list[tuple[str, Executable | str]]] = {}
    for module, name, statement in constants():
        if not module.startswith("qortex_db.repositories."):  # those are their methods'
            by_module.setdefault(module, []).append((name, statement))
    page.begin(
        "Engine, report and migrations",
        "What is asked outside of the repositories, by module and name. What migrations make of\n"
        "the names of a database's own tables (DDL, `LOCK TABLE`, checksums) is not here; the SQL\n"
        "of the revisions is printed by `qortex-db upgrade --sql`.",
        {module.removeprefix("qortex_db."): f"`{module}`" for module in by_module},
    )
    for module, statements in by_module.items():
        page.head(f"`{module}`")
        for name, statement in statements:
            page.add(f"`{name}`", f"`{module}`, `{name}`", [statement])


def constants() -> Iterator[tuple[str, str, Executable | str]]:
    """The statements of modules, by the module that makes them and by name.

    They are made at import, or by a cached function that is given nothing.
    """
    for info in pkgutil.walk_packages(qortex_db.__path__, "qortex_db."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        source = inspect.getsource(module)
        for name, value in vars(module).items():
            made = value
            if (
                callable(value)
                and hasattr(value, "cache_info")
                and not inspect.signature(value).parameters
            ):
                made = value() if value.__module__ == info.name else None
            elif not re.search(rf"^{name}(:| =)", source, re.MULTILINE):
                continue
            yield from ((info.name, name, one) for one in _statements(made))


def _statements(value: object) -> Iterator[Executable | str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _statements(one)
    elif isinstance(value, (str, TextClause)):
        if _SQL.match(str(value)):  # no default of a column
            yield value
    elif isinstance(value, Executable) and not isinstance(value, FunctionElement):
        yield value


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory(prefix="qx-") as folder:
        Path(folder).chmod(0o755)  # the server has a user of its own
        server = embedded.start(Path(folder) / "data")
        try:
            settings = Settings(dsn=server.dsn(), dimensions=DIMENSIONS)
            asyncio.run(migrations.upgrade(settings))
            text = asyncio.run(make_page(server.dsn())).render()
        finally:
            server.stop()
    (Path(__file__).parent / "statements.md").write_text(text)


if __name__ == "__main__":
    main()
