"""The lane of calls by themselves, as a view of a Database has it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from qortex_db.engine.executor import NO_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Executable

    from qortex_db.engine.executor import Executor, Fetched
    from qortex_db.engine.lanes.autocommit import AutocommitExecutor
    from qortex_db.engine.options import CallOptions


class ViewExecutor:
    """The lane of calls by themselves of a view: that of its Database, under options of its own.

    Args:
        lane: What gives the Database's.
        options: Of the calls.
    """

    commits = True

    def __init__(self, lane: Callable[[], AutocommitExecutor], options: CallOptions) -> None:
        self._lane = lane
        self._options = options

    def of(self, model: Any) -> ViewExecutor:  # noqa: ARG002 - one engine has all
        return self

    async def run(
        self,
        statement: Executable,
        params: Mapping[str, Any],
        *,
        settings: Mapping[str, str] = NO_SETTINGS,
    ) -> Fetched:
        return await self._lane().run(statement, params, self._options, settings=settings)

    async def run_all(
        self, statement: Executable, params: Iterable[Mapping[str, Any]]
    ) -> Sequence[Any]:
        return await self._lane().run_all(statement, params, self._options)

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()  # as there

    def together(self) -> AbstractAsyncContextManager[Executor]:
        return self._lane().together(self._options)

    async def on_citus(self) -> bool:
        return await self._lane().on_citus()

    async def catalog(self) -> dict[object, Any]:
        return await self._lane().catalog(self._options)

    def known(self) -> dict[object, Any]:
        return self._lane().known(self._options)

    def schema_of(self, declared: str | None) -> str | None:
        own = self._options.schema
        return own if own and declared is None else self._lane().schema_of(declared)
