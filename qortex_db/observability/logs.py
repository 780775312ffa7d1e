"""Events, to the logger that a host configures: its structlog, or standard logging."""

from __future__ import annotations

import logging
from typing import Any

import structlog

from qortex_db.observability.apart import apart

_logger = logging.getLogger("qortex_db")
_logger.addHandler(logging.NullHandler())

_to_logging: structlog.stdlib.BoundLogger = structlog.wrap_logger(
    _logger,
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.processors.KeyValueRenderer(key_order=["event"]),
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
)


def _configuration() -> dict[str, Any]:
    found = structlog.get_config()
    return {**found, "processors": [*found["processors"]]}  # capture_logs() changes the list itself


# After capture_logs() a process counts as configured, by what structlog began with.
_unconfigured = None if structlog.is_configured() else _configuration()


class _Log:
    """Events as the host has its own: by its structlog configuration, if it made one.

    Else they are `event='…' key=value` through standard logging's `qortex_db`.
    """

    def info(self, event: str, **fields: object) -> None:
        with apart():
            self._logger().info(event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        with apart():
            self._logger().warning(event, **fields)

    def _logger(self) -> Any:
        # Asked each time: hosts configure it late, and tests for a while.
        if structlog.is_configured() and _configuration() != _unconfigured:
            return structlog.get_logger(_logger.name)
        return _to_logging


log = _Log()
