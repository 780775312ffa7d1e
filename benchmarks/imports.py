"""What importing the package costs, beside the libraries that it imports."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from house import House

ROUNDS = 5
LIBRARIES = (
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


def _milliseconds(statement: str) -> float:
    """What `-X importtime` says of all modules that a statement loads."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.removeprefix("import time:") for line in done.stderr.splitlines()[1:]]
    return sum(int(line.split("|")[0]) for line in lines) / 1000


async def imports(house: House, folder: Path, where: str) -> str:
    """The page; best of several rounds, as an import waits for nothing but the disk."""
    del house
    programs = {
        "nothing": "pass",
        "the libraries": f"import {', '.join(LIBRARIES)}",
        "qortex_db": "import qortex_db",
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, program in programs.items():
            times[name].append(await asyncio.to_thread(_milliseconds, program))
    best = {name: min(measured) for name, measured in times.items()}
    base = best["the libraries"] - best["nothing"]
    lines = [
        "# Importing",
        "",
        "`import qortex_db` beside the import of what it stands on, by `python -X importtime`.",
        "Statements are built when they are first used; Alembic, the command line and the embedded",
        "server are imported by whoever needs them. The libraries are:",
        "",
        *(f"- `{name}`" for name in LIBRARIES),
        "",
        "| | best, ms | × the libraries |",
        "|---|---:|---:|",
    ]
    for name in ("the libraries", "qortex_db"):
        spent = best[name] - best["nothing"]
        lines.append(f"| {name} | {spent:,.0f} | {spent / base:.2f} |")
    lines += [
        "",
        f"Best of {ROUNDS} interleaved rounds, by `make bench TOPIC=imports`. {where}",
        "",
    ]
    page = "\n".join(lines)
    (folder / "imports.md").write_text(page)
    return page
