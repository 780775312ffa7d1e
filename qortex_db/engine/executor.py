"""What the two lanes share: their protocol, and what a statement gave."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.sql.dml import UpdateBase

from qortex_db import translation
from qortex_db.errors import InvalidInputError
from qortex_db.mirrors import original_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Connection, CursorResult, Engine, Executable


NO_SETTINGS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a statement gave."""

    rows: Sequence[Any]  # by position, on either lane
    rowcount: int


class Executor(Protocol):
    """Runs statements; what it raises is of our error tree."""

    @property
    def commits(self) -> bool:
        """Whether each call is a transaction of its own."""
        ...

    def of(self, model: Any) -> Executor:
        """The same for the statements of a model, which a session may have on another engine."""
        ...

    async def run(
        self,
        statement: Executable,
        params: Mapping[str, Any],
        *,
        settings: Mapping[str, str] = NO_SETTINGS,
    ) -> Fetched:
        """Execute and fetch everything.

        Args:
            settings: What it runs under, on the nodes of Citus too; elsewhere a statement sets that
                itself, in its own round trip.
        """
        ...

    async def run_all(
        self, statement: Executable, params: Iterable[Mapping[str, Any]]
    ) -> Sequence[Any]:
        """Execute with each of the parameters, all or none; return the rows that came back."""
        ...

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """A block whose failure undoes what it wrote, and nothing besides."""
        ...

    def together(self) -> AbstractAsyncContextManager[Executor]:
        """A lane whose statements are one transaction, for what no one statement says on Citus.

        A failure in the block undoes what it wrote.
        """
        ...

    async def on_citus(self) -> bool:
        """Whether the database has Citus, so that statements have other forms there."""
        ...

    async def catalog(self) -> dict[object, Any]:
        """What repositories have learned of this database, by keys of theirs."""
        ...

    def known(self) -> dict[object, Any] | None:
        """The same, where nothing has to be awaited for it."""
        ...

    def schema_of(self, declared: str | None) -> str | None:
        """Where a table of a declared schema is, once `catalog` was; None for the search_path."""
        ...


ONE_TASK: Final = (
    "The session is in use by another task, and belongs to one: open a session for each task, or "
    "await one call after the other."
)
_CONCURRENT: Final = "isce"
"""SQLAlchemy's code for it."""
SEARCH_PATH: Final = "search_path"
"""The setting by which PostgreSQL looks for tables, and the key of a session's info where it is."""
COMPILED: Final = "qortex_db_compiled"
"""The option of a statement that says where SQLAlchemy keeps it compiled; None for nowhere."""

_CATALOG: Final = "_qortex_db_catalog"
"""An attribute of the dialect: all have it in common that are derived from one engine.

A weak dictionary would keep engines for ever: what is known of one leads back to it.
"""


def catalog_of(engine: Engine | Connection, search_path: str | None = None) -> dict[object, Any]:
    """What is known of an engine's database, looked up once for all that is derived from it.

    Args:
        search_path: Where calls look for tables, if not where the engine's others do.
    """
    known: dict[object, Any] = vars(engine.dialect).setdefault(_CATALOG, {})
    return known if search_path is None else known.setdefault((SEARCH_PATH, search_path), {})


def fetched(result: CursorResult[Any]) -> Fetched:
    return Fetched(result.fetchall() if result.returns_rows else (), result.rowcount)


def written_tables(statement: Executable) -> tuple[object, ...] | None:
    """The tables whose loaded rows a statement may change; None where it writes nothing.

    One that writes in a CTE says which by the option `writes`.
    """
    own = (original_of(statement.table),) if isinstance(statement, UpdateBase) else None
    tables: tuple[object, ...] | None = statement.get_execution_options().get("writes", own)
    return tables


def kept_compiled(statement: Executable) -> dict[str, Any]:
    """The option that has SQLAlchemy keep what it compiles of a statement where that says."""
    options = statement.get_execution_options()
    return {"compiled_cache": options[COMPILED]} if COMPILED in options else {}


def translated(error: Exception) -> Exception:
    if isinstance(error, InvalidRequestError) and error.code == _CONCURRENT:
        return InvalidInputError(ONE_TASK)
    return translation.translated(error)


def translate_map(schema: str | None) -> dict[str, Any]:
    """The execution option that puts the package's tables into a schema."""
    return {} if schema is None else {"schema_translate_map": {None: schema}}
