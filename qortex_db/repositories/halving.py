"""Rows written together, of which the server may refuse some for what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from qortex_db.errors import InvalidInputError, QortexDbError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from qortex_db.engine import Executor

R = TypeVar("R")
T = TypeVar("T")

_OF_A_ROW: Final = ("22", "23", "44", "P0")
"""Classes of SQLSTATE that tell of a row: data, constraints, a view's CHECK OPTION, a trigger's."""


async def by_halves(
    executor: Executor,
    rows: Sequence[R],
    write: Callable[[Sequence[R]], Awaitable[T]],
    put_aside: Callable[[R, QortexDbError], object],
) -> list[T]:
    """Write rows, in halves where some are refused, by this package or by the server.

    Args:
        write: Given some of them; what it wrote is undone where it raises.
        put_aside: Given a row that is refused, and why.

    Returns:
        What `write` gave, in the order of the rows.
    """
    if not rows:
        return []
    try:
        async with executor.savepoint():
            return [await write(rows)]
    except QortexDbError as error:
        if not (isinstance(error, InvalidInputError) or _tells_of_a_row(error)):
            raise
        if len(rows) == 1:
            put_aside(rows[0], error)
            return []
    middle = len(rows) // 2
    first = await by_halves(executor, rows[:middle], write, put_aside)
    return first + await by_halves(executor, rows[middle:], write, put_aside)


def _tells_of_a_row(error: QortexDbError) -> bool:
    return (error.sqlstate or "").startswith(_OF_A_ROW)
