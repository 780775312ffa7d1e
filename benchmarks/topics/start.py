"""What a process pays before its first answer."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
from data import passages
from entries import Entry
from pages import Page
from peers import HERE

from support.roundtrips import counted

if TYPE_CHECKING:
    from house import House

LIBRARIES = (
    "sqlalchemy",
    "sqlalchemy.ext.asyncio",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.orm",
    "asyncpg",
    "numpy",
    "pydantic_settings",
    "structlog",
    "opentelemetry.trace",
    "opentelemetry.metrics",
)
PROGRAMS = {
    "the libraries": ["-c", f"import {', '.join(LIBRARIES)}"],
    "`import qortex_db`": ["-c", "import qortex_db"],
    "`from qortex_db import Database, Settings`": [
        "-c",
        "from qortex_db import Database, Settings",
    ],
    "`from qortex_db import *`": ["-c", "from qortex_db import *"],
    "`qortex-db --help`": ["-m", "qortex_db", "--help"],
    "`qortex-db arms top --help`": ["-m", "qortex_db", "arms", "top", "--help"],
}
ROUNDS = 9
_PROCESSES = f"""
Best whole process, the interpreter's own start in it; the ratios are without that. The libraries
are {", ".join(f"`{name}`" for name in LIBRARIES)}.
""".strip()
_UNCOMPILED = "PYTHONDONTWRITEBYTECODE"


def _run(arguments: list[str]) -> tuple[float, str]:
    """A process's whole life, in seconds, and what it said."""
    # As an installed package is: compiled once.
    environment = {name: value for name, value in os.environ.items() if name != _UNCOMPILED}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    return time.perf_counter() - start, done.stdout


async def start(house: House) -> Page:
    """Importing, the command line, and a fresh process's way to its first answers.

    Whole processes take turns. A public name is imported, with what it needs, when it is first
    asked for, so `import qortex_db` alone shows little: `from qortex_db import Database, Settings`
    is what a service imports.
    """
    rounds = min(ROUNDS, house.most_rounds or ROUNDS)
    imports = await asyncio.to_thread(_programs, rounds)
    vectors, queries = passages()
    await house.data(vectors, queries)
    await house.load("ours")
    moments = await _moments(house, rounds)
    return Page([imports, moments])


def _programs(rounds: int) -> str:
    nothing = ["-c", "pass"]
    seconds: dict[str, list[float]] = {name: [] for name in ("", *PROGRAMS)}
    for name, program in PROGRAMS.items():  # compiled, and in the disk's cache
        _run(program)
        seconds[name] = []
    for _ in range(rounds):
        for name, program in {"": nothing, **PROGRAMS}.items():
            seconds[name].append(_run(program)[0])
    best = {name: min(measured) * 1e3 for name, measured in seconds.items()}
    base = best["the libraries"] - best[""]
    lines = [
        "## Processes",
        "",
        _PROCESSES,
        "",
        "| | best, ms | × the libraries |",
        "|---|---:|---:|",
        f"| nothing | {best['']:,.0f} | |",
    ]
    for name in PROGRAMS:
        spent = best[name] - best[""]
        lines += [f"| {name} | {best[name]:,.0f} | {spent / base:.2f} |"]
    return "\n".join(lines)


async def _moments(house: House, rounds: int) -> str:
    peers = ("raw", "ours", "ours_host", "orm")
    told: dict[str, list[dict[str, float]]] = {peer: [] for peer in peers}
    cold = str(HERE / "cold.py")
    for _ in range(rounds + 1):  # the first one warms the server up
        for peer in peers:
            arguments = [cold, peer, await house.place(peer), str(house.folder)]
            _, said = await asyncio.to_thread(_run, arguments)
            told[peer].append(json.loads(said))
    names = ("import", "open", "first", "second", "later")
    lines = [
        "## A fresh process, and its searches",
        "",
        "Medians, in ms. Round trips are those of opening.",
        "",
        "| | import | open | round trips | first search | second | later |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for peer in peers:
        times = [float(np.median([each[name] for each in told[peer][1:]])) * 1e3 for name in names]
        async with counted(await house.place(peer)) as trips:
            answers = [cold, peer, trips.dsn, str(house.folder), "open"]
            await asyncio.to_thread(_run, answers)
            opened = trips.count
        cells = [f"{time:.1f}" for time in times]
        title = Entry(peer, "", {}).title
        lines.append("| " + " | ".join([title, *cells[:2], str(opened), *cells[2:]]) + " |")
    return "\n".join(lines)
