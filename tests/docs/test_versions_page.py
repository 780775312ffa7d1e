"""The page of supported versions says what the project's files and the tests' servers say."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

import asyncpg
import pytest

from support.commands import ROOT

if TYPE_CHECKING:
    from qortex_db.testing import Server

PAGE = (ROOT / "docs/supported_versions.md").read_text()
MATRIX = PAGE.partition("## Dependencies")[0]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_dependencies_are_those_of_the_project() -> None:
    said = re.findall(r"^\| ([a-z-]+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    floors = [re.match(r"([\w-]+)(?:\[.*\])?>=([\d.]+)$", one) for one in PROJECT["dependencies"]]
    pins = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    )
    assert all(floors)
    assert said == [(one[1], one[2], pins[one[1]]) for one in floors if one is not None]


def test_the_versions_of_python_are_those_of_the_project() -> None:
    (row,) = re.findall(r"^\| Python \| (.+) \| (.+) \|$", PAGE, re.MULTILINE)
    named = {*re.findall(r"3\.\d+", " ".join(row))}
    floor = PROJECT["requires-python"].removeprefix(">=")
    classified = {
        *re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"])),
    }
    assert floor == min(named, key=lambda one: int(one[2:]))
    assert named <= classified


@pytest.mark.parametrize("name", ["server", "server16"])
async def test_the_servers_of_the_tests_are_of_these_versions(
    name: str, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(name)
    connection = await asyncpg.connect(server.dsn())
    major = connection.get_server_version().major
    vector = await connection.fetchval(
        "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
    )
    await connection.close()
    tested = dict(re.findall(r"^\| (PostgreSQL|pgvector) \| (.+?) \|", MATRIX, re.MULTILINE))
    assert re.search(rf"\b{major}\b", tested["PostgreSQL"])
    assert vector in tested["pgvector"].replace(";", " ").split()
