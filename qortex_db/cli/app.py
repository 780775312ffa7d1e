"""What every command is made of: `-h` is `--help`, and a flag is shown as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_HELP: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


def _without_type(params: Iterable[Any]) -> list[Any]:
    """Options whose help tells the type of a value, where they take one."""
    found = list(params)
    for param in found:
        if getattr(param, "is_flag", False) and param.metavar is None:
            param.metavar = ""
    return found


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_type(super().get_params(ctx))


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_type(super().get_params(ctx))


class App(typer.Typer):
    """The app, or a command of it that has commands."""

    def __init__(self, **options: Any) -> None:
        options = {"pretty_exceptions_enable": False, **options}  # they show local variables
        super().__init__(cls=_Group, context_settings=_HELP, no_args_is_help=True, **options)

    def command(
        self, name: str | None = None, *, context_settings: Any = None, **options: Any
    ) -> Callable[[Any], Any]:
        """As of Typer."""
        settings = _HELP | (context_settings or {})
        return super().command(name, cls=_Command, context_settings=settings, **options)
