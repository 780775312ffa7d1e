"""The events that qortex's own index and learner tell a qortex that runs in this process."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

from qortex_db.observability.apart import apart

_EMITTER: Final = "qortex.observe.emitter"
_EVENTS: Final = "qortex.observe.events"


def are_heard() -> bool:
    """Whether a qortex listens: its metrics, its log, its alerts."""
    return getattr(sys.modules.get(_EMITTER), "_emitter", None) is not None


def tell(name: str, **fields: object) -> None:
    """Emit an event, by the name of its class."""
    if not are_heard():
        return
    with apart():
        emitter: Any = sys.modules[_EMITTER]
        emitter.emit(getattr(sys.modules[_EVENTS], name)(**fields))


def milliseconds_since(start: float) -> float:
    """As events have times; `start` is `time.perf_counter()`'s."""
    return (time.perf_counter() - start) * 1_000
