"""What is told of work never fails it: a host's own provider, or its logger, may raise anything."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_fallback = logging.getLogger("qortex_db")


@contextmanager
def apart() -> Iterator[None]:
    """Tell something; that it can't be told is logged, where that can be."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - not ours
        with suppress(Exception):
            _fallback.warning("qortex_db could not tell of its work: %s", type(error).__name__)
