"""Haystack's own tests of document stores, those that wait and those that are awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from haystack.dataclasses import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.testing.document_store import (
    CountDocumentsByFilterTest,
    CountUniqueMetadataByFilterTest,
    DocumentStoreBaseExtendedTests,
    GetMetadataFieldMinMaxTest,
)
from haystack.testing.document_store_async import (
    CountDocumentsAsyncTest,
    CountDocumentsByFilterAsyncTest,
    CountUniqueMetadataByFilterAsyncTest,
    DeleteAllAsyncTest,
    DeleteByFilterAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    GetMetadataFieldMinMaxAsyncTest,
    UpdateByFilterAsyncTest,
    WriteDocumentsAsyncTest,
)

from qortex_db import Settings, migrations
from qortex_db.integrations.haystack import QortexDocumentStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from qortex_db.testing import Server


pytestmark = pytest.mark.slow  # a hundred tests, a database for each


async def _migrate(dsn: str) -> None:
    await migrations.upgrade(Settings(dsn=dsn, dimensions=768))


def _told(document: Document) -> dict[str, Any]:
    """All of a document, its embedding as float4 has it; a store has no order of its own."""
    told: dict[str, Any] = document.to_dict(flatten=False)
    if told["embedding"] is not None:
        told["embedding"] = np.float32(told["embedding"]).tolist()
    return told


class _OverTheDefaultTable:
    @pytest.fixture
    async def document_store(self, server: Server) -> AsyncIterator[QortexDocumentStore]:
        with server.database(server.template(_migrate)) as dsn:
            store = QortexDocumentStore(dsn)
            yield store
            await store.close_async()
            store.close()

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        by_id = sorted(expected, key=lambda document: document.id)
        assert [_told(document) for document in received] == [_told(one) for one in by_id]


class TestQortexDocumentStore(
    _OverTheDefaultTable,
    CountDocumentsByFilterTest,
    CountUniqueMetadataByFilterTest,
    DocumentStoreBaseExtendedTests,
    GetMetadataFieldMinMaxTest,
):
    """All that wait."""

    def test_write_documents(self, document_store: Any) -> None:
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document], DuplicatePolicy.NONE)


class TestQortexDocumentStoreAsync(
    _OverTheDefaultTable,
    CountDocumentsAsyncTest,
    CountDocumentsByFilterAsyncTest,
    CountUniqueMetadataByFilterAsyncTest,
    DeleteAllAsyncTest,
    DeleteByFilterAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    GetMetadataFieldMinMaxAsyncTest,
    UpdateByFilterAsyncTest,
    WriteDocumentsAsyncTest,
):
    """All that are awaited."""

    async def test_write_documents_async(self, document_store: Any) -> None:
        document = Document(content="test doc")
        assert await document_store.write_documents_async([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([document], DuplicatePolicy.NONE)
