"""For scripts and notebooks: a Database whose methods wait.

It has what the async one has. Its calls run on one event loop in a thread of the background, which
all of them share; a web service is better off with the async one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from qortex_db import database
from qortex_db.sync.background import BACKGROUND
from qortex_db.sync.forwarding import ForwardedLanes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from sqlalchemy import URL

    from qortex_db.encryption import EncryptionKeys
    from qortex_db.engine import Consistency
    from qortex_db.settings import Settings

__all__ = ["Database"]


class Database(ForwardedLanes):
    """As `qortex_db.Database`, where whatever is awaited there is waited for.

    Any number of threads may share one. What is called back (an embedder, `on_progress`) runs in
    the background's thread.
    """

    _target: database.Database

    def __init__(self, target: database.Database) -> None:
        super().__init__(target, BACKGROUND)

    @classmethod
    def connect(
        cls,
        target: Settings | str | URL | None = None,
        *,
        replicas: Sequence[str | URL] | None = None,
        consistency: Consistency | None = None,
        encryption_keys: EncryptionKeys | None = None,
    ) -> Self:
        """As of the async one: use it in a `with` block, or call `open` and `close`."""
        made = database.Database.connect(
            target, replicas=replicas, consistency=consistency, encryption_keys=encryption_keys
        )
        return cls(made)

    def open(self) -> Self:
        """As of the async one."""
        BACKGROUND.run(self._target.open())
        return self

    def close(self, *, grace_seconds: float = database.GRACE_SECONDS) -> None:
        """As of the async one."""
        BACKGROUND.run(self._target.close(grace_seconds=grace_seconds))

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
