"""One async engine, and the two lanes that statements take over its pool.

A repository call by itself is its own transaction, in one round trip; in a unit of work it runs in
that session's transaction. Repositories see an `Executor` and don't know which.
"""

from qortex_db.engine.connections.cleanup import Cleanup, finished, task_of
from qortex_db.engine.connections.connecting import Connector
from qortex_db.engine.connections.engines import (
    RETRY_SECONDS,
    adopt,
    create_engine,
    notice_silence,
    tell_of_rotation,
)
from qortex_db.engine.connections.loops import OneAtATime, forks
from qortex_db.engine.connections.operations import Operations, dispose
from qortex_db.engine.connections.pool import FairPool, capacity_of
from qortex_db.engine.connections.search_path import CLOSED, open_schemas, path_of, pin_search_path
from qortex_db.engine.consistency import CONSISTENCIES, Consistency, OwnWrites
from qortex_db.engine.executor import COMPILED, SEARCH_PATH, Executor, Fetched, translate_map
from qortex_db.engine.lanes.autocommit import AutocommitExecutor
from qortex_db.engine.lanes.session import RETRY, SessionExecutor
from qortex_db.engine.lanes.transactions import (
    close,
    commit,
    committed,
    in_doubt,
    savepoint,
    set_meanwhile,
)
from qortex_db.engine.lanes.view import ViewExecutor
from qortex_db.engine.options import NO_OPTIONS, CallOptions, SettingValue
from qortex_db.engine.outcomes import OwnSession, wrote
from qortex_db.engine.replicas import Replicas
from qortex_db.engine.telling import on_primary

__all__ = [
    "CLOSED",
    "COMPILED",
    "CONSISTENCIES",
    "NO_OPTIONS",
    "RETRY",
    "RETRY_SECONDS",
    "SEARCH_PATH",
    "AutocommitExecutor",
    "CallOptions",
    "Cleanup",
    "Connector",
    "Consistency",
    "Executor",
    "FairPool",
    "Fetched",
    "OneAtATime",
    "Operations",
    "OwnSession",
    "OwnWrites",
    "Replicas",
    "SessionExecutor",
    "SettingValue",
    "ViewExecutor",
    "adopt",
    "capacity_of",
    "close",
    "commit",
    "committed",
    "create_engine",
    "dispose",
    "finished",
    "forks",
    "in_doubt",
    "notice_silence",
    "on_primary",
    "open_schemas",
    "path_of",
    "pin_search_path",
    "savepoint",
    "set_meanwhile",
    "task_of",
    "tell_of_rotation",
    "translate_map",
    "wrote",
]
