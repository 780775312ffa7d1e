from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from qortex_db import migrations
from support.commands import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def test_upgrade_check_status_and_downgrade(empty_dsn: str) -> None:
    given = {"PGVECTOR_DSN": empty_dsn, "QORTEX_VEC_DIMENSIONS": "8"}
    code, _, error = run("check", "--schema", "mem", **given)
    assert code == 1
    assert "run `QORTEX_DB_SCHEMA=mem qortex-db upgrade`." in error
    code, _, error = run("status", **given)
    assert code == 1
    assert "qortex-db upgrade" in error
    assert run("upgrade", **given)[0] == 0
    assert run("check", **given)[0] == 0
    code, printed, _ = run("status", "--json", **given)
    report = json.loads(printed)
    assert code == 0
    assert report["vector_index"] == "PgVectorIndex"
    assert report["interoception"]["backend"] == "postgres"
    assert report["learning"]["backend"] == "postgres"
    assert report["schema"] == {
        "current": migrations.head_revision(),
        "head": migrations.head_revision(),
        "is_current": True,
    }
    assert (report["dimensions"], report["embedded"], report["invalid_indexes"]) == (8, False, [])
    assert report["server_version"].startswith("18")
    assert report["pgvector_version"].startswith("0.8")
    assert report["tables"]["qortex_vectors"]["rows"] == 0
    assert report["tables"]["qortex_vectors"]["bytes"] > 0
    code, printed, _ = run("status", **given)
    assert code == 0
    assert "PostgreSQL 18" in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert run("downgrade", "-1", **given)[0] == 0
    assert run("check", **given)[0] == 1
    assert run("upgrade", "+1", **given)[0] == 0
    assert run("downgrade", "base", **given)[0] == 0
    assert run("check", **given)[0] == 1


@pytest.mark.parametrize("command", [["upgrade"], ["downgrade", "base"], ["check"], ["status"]])
def test_nothing_given_starts_no_server_and_names_the_variables(
    command: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "never"
    code, _, error = run(*command, QORTEX_DB_EMBEDDED_PATH=str(path))
    assert code == 1
    assert "PGVECTOR_DSN" in error
    assert "--embedded" in error
    assert not path.exists()


def test_errors_are_one_line_without_traceback_or_password() -> None:
    code, _, error = run("status", PGVECTOR_DSN="postgresql://u:s3cr3t@127.0.0.1:1/db")
    assert code == 1
    assert error.startswith("error: Could not connect to 127.0.0.1:1")
    assert "Traceback" not in error
    assert "s3cr3t" not in error
    code, _, error = run("check", QORTEX_STORE="mysql")
    assert code == 2
    assert "QORTEX_STORE" in error
    assert "mysql" in error


def test_sql_is_printed_without_a_server() -> None:
    code, printed, _ = run("upgrade", "--sql")
    assert code == 0
    assert "CREATE TABLE qortex_vectors" in printed


def test_the_version_and_the_help() -> None:
    assert run("--version")[1].startswith("qortex-db 0.")
    shown = run("--help")[1]
    assert "readiness" in shown
    assert "PGVECTOR_DSN" in shown  # which server it is about


def test_embedded_goes_before_a_given_server(folder: Path, empty_dsn: str) -> None:
    given = {
        "PGVECTOR_DSN": empty_dsn,
        "QORTEX_DB_EMBEDDED_PATH": str(folder / "own"),
        "QORTEX_VEC_DIMENSIONS": "8",
    }
    assert run("upgrade", "--embedded", **given)[0] == 0
    code, printed, error = run("status", "--embedded", "--json", **given)
    assert code == 0, error
    report = json.loads(printed)
    assert report["embedded"] is True
    assert report["schema"]["is_current"] is True
    assert run("check", **given)[0] == 1  # the given one is as empty as before


def test_what_the_embedded_server_has_is_found_where_no_other_is_named(
    folder: Path, dsn: str
) -> None:
    given = {"QORTEX_DB_EMBEDDED_PATH": str(folder / "found"), "QORTEX_VEC_DIMENSIONS": "8"}
    assert run("upgrade", "--embedded", **given)[0] == 0
    for command in (["status", "--json"], ["upgrade"], ["check"], ["vectors", "count"], ["doctor"]):
        code, printed, error = run(*command, **given)
        assert code == 0, error
        assert error.count("No server is named: using the embedded one in") == 1
        assert command != ["status", "--json"] or json.loads(printed)["embedded"] is True
    code, printed, error = run("status", "--json", PGVECTOR_DSN=dsn, **given)
    assert (code, error) == (0, "")
    assert json.loads(printed)["embedded"] is False


def test_without_its_extra_the_command_line_says_how_to_install_it() -> None:
    program = "import sys; sys.modules['typer'] = None; import qortex_db.__main__ as m; m.main()"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        'The command line is not installed: pip install "qortex-db[cli]"'
    )
