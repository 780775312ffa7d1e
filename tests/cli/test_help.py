"""Help of every command, and completion."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import typer.main
from typer.testing import CliRunner

from qortex_db.cli import app
from support.commands import BIN, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDE = {"COLUMNS": "100"}


def paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, each in getattr(command, "commands", {}).items():
        yield from paths(each, (*path, name))


PROGRAM = typer.main.get_command(app)
ALL = list(paths(PROGRAM))
PARAMS: dict[tuple[str, ...], list[Any]] = {
    path: functools.reduce(lambda each, name: each.commands[name], path, PROGRAM).params  # type: ignore[attr-defined]
    for path in ALL
}


def commands_of(page: str) -> Iterator[list[str]]:
    """The commands in a page's consoles, without what follows a pipe or a mark."""
    for line in re.findall(r"^\$ qortex-db (.*)$", (ROOT / page).read_text(), re.MULTILINE):
        yield re.split(r"\s[|>#]", f"{line} ")[0].split()


@pytest.mark.parametrize("page", ["README.md", "docs/command_line.md", "docs/quickstart.md"])
def test_the_pages_name_commands_and_options_that_there_are(page: str) -> None:
    known = {path: {flag for one in params for flag in one.opts} for path, params in PARAMS.items()}
    found = list(commands_of(page))
    assert found
    for words in found:
        path = next(tuple(words[:n]) for n in (2, 1, 0) if tuple(words[:n]) in known)
        used = {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)}
        assert used <= known[path] | {"-h", "--help"}, words
        assert path or words[0].startswith("-"), words


def test_every_command_is_on_the_page() -> None:
    page = (ROOT / "docs/command_line.md").read_text()
    table = page[: page.index("\n## ")]
    groups = {each[:1] for each in ALL if len(each) > 1}
    for path in ALL:
        if path and path not in groups:
            assert re.search(rf"`{path[0]}\b", table), path
            assert re.search(rf"(`|\b){path[-1]}\b", table), path


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
