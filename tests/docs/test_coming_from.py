"""The filters in the tables of docs/coming_from are filters; test_docs runs the examples there."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, select
from sqlalchemy.dialects.postgresql import JSONB

from qortex_db import QortexVector
from qortex_db.filters import read_filter
from support.commands import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qortex_db import Database

PAGES = sorted(set((ROOT / "docs/coming_from").glob("*.md")) - {ROOT / "docs/coming_from/index.md"})
NAMES = {"QortexVector": QortexVector, "datetime": datetime, "UTC": UTC}
# What pgvector.md declares, and one more.
ITEMS = Table(
    "items",
    MetaData(),
    Column("id", Text, primary_key=True),
    Column("payload", JSONB),
    Column("document", Text),
    Column("price", Integer),
)
ORDERS = Table("orders", MetaData(), Column("item_id", Text))


def filters(page: str) -> Iterator[str]:
    """What stands on the right of the table of filters and looks like one of ours."""
    for row in page.partition("\n## Filters\n")[2].partition("\n## ")[0].splitlines():
        if row.startswith("| "):
            right = re.split(r"(?<!\\)\|", row)[2]
            for code in re.findall(r"`([^`]+)`", right):
                if re.match(r"\{|~?QortexVector\.|Item\.", code) and not code.endswith("(…)"):
                    yield code.replace(r"\|", "|")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
async def test_every_filter_of_a_page_is_taken_by_the_server(page: Any, db: Database) -> None:
    found = list(filters(page.read_text()))
    assert len(found) >= 10
    for code in found:
        if "Item." in code:
            where = eval(code, {"Item": ITEMS.c, "Order": ORDERS.c, "select": select})  # noqa: S307
            read_filter(where, ITEMS)
        else:
            assert await db.vectors.count(where=eval(code, NAMES)) == 0, code  # noqa: S307
