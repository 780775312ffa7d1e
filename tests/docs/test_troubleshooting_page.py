"""The messages on the page of troubleshooting are what the code says."""

from __future__ import annotations

import ast
import asyncio
import functools
import re
from typing import TYPE_CHECKING, Any

import pytest

from qortex_db import Database, Settings
from support.commands import ROOT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PAGE = (ROOT / "docs/troubleshooting.md").read_text()
MESSAGES = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)


def _said(node: ast.expr) -> str | None:
    """A text of the source, with … for what is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"\{.*?\}", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        parts = (_said(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
        return re.sub(r"\{.*?\}", "…", "".join(part or "" for part in parts))
    return None


@functools.cache
def _texts() -> str:
    """Every text of the code, a line each."""
    nodes = (
        node
        for path in sorted((ROOT / "qortex_db").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Constant, ast.JoinedStr))
    )
    return "\n".join(text.replace("\n", " ") for node in nodes if (text := _said(node)))


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_in_the_code(message: str) -> None:
    pattern = re.escape(message).replace("…", r"\S*…\S*")
    pattern = pattern.removeprefix(r"\S*…\S*").removesuffix(r"\S*…\S*")  # maybe another's part
    assert re.search(pattern, _texts()), message


async def _raised(call: Callable[[], Awaitable[Any]]) -> str:
    try:
        await call()
    except Exception as error:  # noqa: BLE001 - whatever it says
        return str(error)
    pytest.fail("It raised nothing.")


async def test_messages_come_as_the_page_has_them(db: Database, dsn: str, empty_dsn: str) -> None:
    async def other_loop() -> None:
        await asyncio.to_thread(lambda: asyncio.run(db.factors.load()))

    async with (
        Database.connect(empty_dsn) as empty,
        Database.connect(
            Settings(dsn=dsn, dimensions=None, pool_max_size=1, pool_min_size=0)
        ) as one,
    ):

        async def within() -> None:
            async with one.unit_of_work() as uow:
                await uow.factors.load()
                await one.factors.load()

        met = [
            await _raised(lambda: db.vectors.search([1.0])),
            await _raised(lambda: db.vectors.recommend(["unknown"])),
            await _raised(lambda: db.arms.get("l", "a", context={"a": object()})),
            await _raised(empty.factors.load),
            await _raised(other_loop),
            await _raised(within),
            await _raised(lambda: Database.connect(Settings(dsn=dsn, dimensions=3)).open()),
        ]
    for said in met:
        known = [
            message
            for message in MESSAGES
            if re.search(re.escape(message).replace("…", ".*"), said)
        ]
        assert known, said
    assert len(set(met)) == 7
