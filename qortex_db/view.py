"""Views of a Database: the same pool, under settings or a schema of their own."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

from qortex_db.engine import CallOptions, ViewExecutor
from qortex_db.errors import InvalidInputError
from qortex_db.names import is_identifier
from qortex_db.uow import Repositories, UnitOfWork

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from qortex_db.engine import AutocommitExecutor, Executor, SettingValue
    from qortex_db.limits import Limits


class Lanes(Repositories):
    """Both lanes: calls by themselves and units of work; and views, which share all but options."""

    _options: CallOptions

    def __init__(
        self,
        executor: Executor | None,
        options: CallOptions,
        *,
        learning_history: bool,
        limits: Limits,
    ) -> None:
        super().__init__(executor, learning_history=learning_history, limits=limits)
        self._options = options

    @abstractmethod
    def unit_of_work(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """One transaction over everything: the block's end commits, an exception rolls back."""

    @abstractmethod
    def _view(self, options: CallOptions) -> DatabaseView:
        """The same under other options."""

    def with_settings(self, settings: Mapping[str, SettingValue]) -> DatabaseView:
        """A view whose calls and units of work run under settings that row-level security reads.

        Each call is a transaction that begins with them (`SET LOCAL`, by `set_config`): three round
        trips instead of one. Nothing of it is left on the connection. A view costs microseconds,
        and nothing has to be closed.

        Args:
            settings: By name, as "app.tenant"; a later view's go before an earlier one's.

        Raises:
            InvalidInputError: A name is none, or a value no text, number or UUID.
        """
        return self._view(self._options.with_settings(settings))

    def namespace(self, name: str) -> DatabaseView:
        """A view of another schema's tables: a tenant's arms, factors, edges, caches and vectors.

        `qortex-db upgrade --schema NAME` makes them. The SQL is compiled once for all of them.

        Raises:
            InvalidInputError: The name is no identifier of 1 to 63 letters, digits, _ and $.
        """
        if not isinstance(name, str) or not is_identifier(name):
            raise InvalidInputError(
                "The name of a namespace is that of a schema: an identifier of 1 to 63 letters, "
                "digits, _ and $."
            )
        return self._view(replace(self._options, schema=name))


class DatabaseView(Lanes):
    """What `with_settings` and `namespace` of a Database give: the same, under options of its own.

    It is as open as its Database, and holds nothing that has to be closed.
    """

    def __init__(
        self,
        lane: Callable[[], AutocommitExecutor],
        begin: Callable[[CallOptions], AbstractAsyncContextManager[UnitOfWork]],
        options: CallOptions,
        *,
        learning_history: bool,
        limits: Limits,
    ) -> None:
        super().__init__(
            ViewExecutor(lane, options), options, learning_history=learning_history, limits=limits
        )
        self._lane = lane
        self._begin = begin

    def unit_of_work(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """One transaction over everything, which begins with the view's settings.

        Raises:
            DatabaseClosedError: The Database is not open.
        """
        return self._begin(self._options)

    def _view(self, options: CallOptions) -> DatabaseView:
        return DatabaseView(
            self._lane,
            self._begin,
            options,
            learning_history=self._learning_history,
            limits=self._limits,
        )
