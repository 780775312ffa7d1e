"""Logs, spans and metrics, and their names. All are silent until the host listens."""

from qortex_db.observability.calls import Subject, call_theirs, observed, outside
from qortex_db.observability.logs import log
from qortex_db.observability.spans import tell_of, traced

__all__ = ["Subject", "call_theirs", "log", "observed", "outside", "tell_of", "traced"]
