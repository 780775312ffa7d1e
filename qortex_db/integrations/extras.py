"""What says which extra has a framework that is not installed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def needs(package: str, *, extra: str) -> Iterator[None]:
    """A block that imports what needs a framework's package.

    Raises:
        ModuleNotFoundError: It is not installed; it says what installs it.
    """
    missing = None
    try:
        yield
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.partition(".")[0] != package:
            raise
    if missing is not None:
        raise ModuleNotFoundError(
            f"{package} is not installed: pip install 'qortex-db[{extra}]'.", name=missing
        )
