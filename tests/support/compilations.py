"""What SQLAlchemy compiles: a statement that is kept is compiled once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


def compilations(engine: AsyncEngine) -> list[str]:
    """The SQL of each statement that is compiled for an engine from here on."""
    seen: list[str] = []
    dialect: Any = engine.dialect

    class Noting(dialect.statement_compiler):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            seen.append(str(self))

    dialect.statement_compiler = Noting
    return seen
