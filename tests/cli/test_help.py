"""Help of every command, and completion."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import typer.main
from typer.testing import CliRunner

from qortex_db.cli import app
from support.commands import BIN

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDE = {"COLUMNS": "100"}


def paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, each in getattr(command, "commands", {}).items():
        yield from paths(each, (*path, name))


ALL = list(paths(typer.main.get_command(app)))


def test_there_are_the_commands_that_the_page_has() -> None:
    assert len(ALL) > 40
    assert {("vectors", "ingest"), ("doctor",), ("collections", "describe")} < set(ALL)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_a_short_option_helps_everywhere_and_flags_take_no_value(path: tuple[str, ...]) -> None:
    short, long = (CliRunner().invoke(app, [*path, flag], env=WIDE) for flag in ("-h", "--help"))
    assert (short.exit_code, short.output) == (0, long.output)
    assert "Usage:" in short.output
    assert "<bool>" not in short.output
    assert "--no-json" not in short.output
    assert "…" not in short.output.replace(" … ", "")  # nothing is cut
    lines = [line for line in short.output.splitlines() if "--embedded" in line]
    assert all("<" not in line for line in lines)


@pytest.mark.slow
def test_a_shell_completes_commands_and_options() -> None:
    def asked(command: list[str], **environment: str) -> str:
        given = os.environ | {"SHELL": "/bin/bash"} | environment
        done = subprocess.run(command, capture_output=True, env=given, check=True, timeout=60)
        return done.stdout.decode()

    program = str(BIN / "qortex-db")

    def completed(words: str) -> list[str]:
        given = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        return asked([program], **given, _QORTEX_DB_COMPLETE="complete_bash").split()

    assert completed("qortex-db vec") == ["vectors"]
    assert completed("qortex-db vectors in") == ["ingest"]
    assert "--where" in completed("qortex-db vectors search --")
    shown = asked(["bash", "-c", f"{program} --show-completion; true"])
    assert "_QORTEX_DB_COMPLETE=complete_bash" in shown
