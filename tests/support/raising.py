"""What a worker process of a test raises, and an error of a host's."""

from __future__ import annotations

from typing import NoReturn

from qortex_db import ConflictError


class OrderError(ConflictError):
    """A host's, which keeps its data in `args`, in an attribute, and words of its own."""

    def __init__(self, order: int, *, customer: str) -> None:
        super().__init__("")
        self.args = (order, customer)
        self.customer = customer

    def __str__(self) -> str:
        return f"order {self.args[0]} of {self.customer}"


def fail(error: BaseException) -> NoReturn:
    """As of a driver's, which can't be sent."""
    raise error from ValueError(lambda: None)
