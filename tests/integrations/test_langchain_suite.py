"""LangChain's own tests of vector stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from langchain_tests.integration_tests.vectorstores import (
    EMBEDDING_SIZE,
    VectorStoreIntegrationTests,
)

from qortex_db import Settings, migrations
from qortex_db.integrations.langchain import QortexVectorStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from qortex_db.testing import Server


async def _migrate(dsn: str) -> None:
    await migrations.upgrade(Settings(dsn=dsn, dimensions=EMBEDDING_SIZE))


class TestQortexVectorStore(VectorStoreIntegrationTests):
    """All of them, over the default table."""

    @pytest.fixture
    async def vectorstore(self, server: Server) -> AsyncIterator[QortexVectorStore]:
        with server.database(server.template(_migrate)) as dsn:
            store = QortexVectorStore(self.get_embeddings(), database=dsn)
            yield store
            await store.aclose()
