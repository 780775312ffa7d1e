"""What tests of imports share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qortex_db import Database
from support.catalogue import execute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def db384(dsn384: str) -> AsyncIterator[Database]:
    """Without its vector index, which would take most of the time and is tried elsewhere."""
    await execute(dsn384, "DROP INDEX ix_qortex_vectors_vec")
    async with Database.connect(dsn384) as database:
        yield database
