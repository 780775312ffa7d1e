"""Puts our stores, and our learner, where qortex 0.8.1's tests make theirs.

Loaded by `pytest -p` in qortex's environment. QORTEX_LEARNER=ours swaps the learner as well.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import qortex.hippocampus.pg_store
import qortex.learning
import qortex.learning.learner
import qortex.learning.pg_store
import qortex.learning.store

import qortex_db

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DSN = os.environ["PGVECTOR_DSN"]
made: list[Any] = []


class NoTables:
    """Tests of qortex's PostgreSQL stores ask for the tables, which migrations made."""

    async def _ensure_schema(self) -> None:
        pass


class InAFolder(qortex_db.PostgresLearningStore):
    """Each test has a folder, and so a learner of its own."""

    def __init__(self, learner_name: str, state_dir: str = "") -> None:
        super().__init__(f"{state_dir}/{learner_name}", DSN)
        made.append(self)


class OnAPool(NoTables, qortex_db.PostgresLearningStore):
    def __init__(self, learner_name: str, _pool: object) -> None:
        super().__init__(learner_name, DSN)
        made.append(self)


class Interoception(NoTables, qortex_db.PostgresInteroceptionStore):
    def __init__(self, _pool: object) -> None:
        super().__init__(DSN)
        made.append(self)


for module in (qortex.learning, qortex.learning.store, qortex.learning.learner):
    module.SqliteLearningStore = module.JsonLearningStore = InAFolder
qortex.learning.pg_store.PostgresLearningStore = OnAPool
qortex.hippocampus.pg_store.PostgresInteroceptionStore = Interoception
if os.environ.get("QORTEX_LEARNER") == "ours":
    qortex.learning.Learner = qortex.learning.learner.Learner = qortex_db.Learner


@pytest.fixture(autouse=True)
async def _closed_afterwards() -> AsyncIterator[None]:
    yield
    while made:
        await made.pop().close()
