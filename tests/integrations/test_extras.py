"""What is imported without its extra says which one it is; what needs none asks for none."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
{program}
"""
FRAMEWORKS = ("langchain_core", "llama_index", "haystack", "pandas", "pyarrow", "polars")
FRAME = (
    "from qortex_db.repositories.vectors.rows.records import SearchHits; "
    "SearchHits([], requested=1, complete=True)"
)


def run(program: str, *blocked: str) -> subprocess.CompletedProcess[str]:
    code = BLOCKED.format(blocked=set(blocked) or "()", program=program)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "extra", "program"),
    [
        ("langchain_core", "langchain", "import qortex_db.integrations.langchain"),
        ("llama_index", "llama-index", "import qortex_db.integrations.llama_index"),
        ("haystack", "haystack", "import qortex_db.integrations.haystack"),
        ("pandas", "frames", f"{FRAME}.to_pandas()"),
        ("pyarrow", "frames", f"{FRAME}.to_arrow()"),
    ],
)
def test_what_needs_an_extra_names_it(package: str, extra: str, program: str) -> None:
    done = run(program, package)
    assert done.returncode == 1
    said = f"{package} is not installed: pip install 'qortex-db[{extra}]'."
    assert done.stderr.strip().splitlines()[-1].endswith(said), done.stderr


@pytest.mark.slow
def test_what_a_framework_itself_misses_is_told_as_it_is() -> None:
    done = run("import qortex_db.integrations.langchain", "langsmith")
    assert "No module named 'langsmith'" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_the_package_needs_no_framework() -> None:
    program = "from qortex_db import *; import qortex_db.sync, qortex_db.integrations.homes"
    assert run(program, *FRAMEWORKS).stderr == ""
