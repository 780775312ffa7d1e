"""The notebook among the examples, run as whoever opens it would, in a kernel of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient import NotebookClient

from qortex_db.sample import load_sample
from support.commands import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

NOTEBOOK = ROOT / "examples/notebook/search.ipynb"


def shown(cell: Any) -> dict[str, str]:
    """What a cell shows by itself, by its kind."""
    (output,) = [one for one in cell.outputs if one.output_type == "execute_result"]
    data: dict[str, str] = output.data
    return data


async def test_the_notebook_runs_and_shows_its_tables(
    dsn384: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGVECTOR_DSN", dsn384)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # none of anybody's are kept
    resources = {"metadata": {"path": str(tmp_path)}}
    await NotebookClient(notebook, timeout=60, resources=resources).async_execute()

    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    errors = [one for cell in code for one in cell.outputs if one.output_type == "error"]
    assert errors == []
    count = len(load_sample().passages)
    assert shown(code[1])["text/plain"] == shown(code[2])["text/plain"] == str(count)

    hits = shown(code[3])["text/html"]
    assert hits.count("<tr") == 6  # five hits, and what the columns are called
    assert "<th>score</th>" in hits
    assert "read" in hits
    assert code[3].outputs[0].text.startswith("How do I")
    kinds = re.findall(r"<td>(class|method|function|module)</td>", shown(code[4])["text/html"])
    assert kinds == ["class"] * 5
    assert "<table" in shown(code[5])["text/html"]
    assert "max" in shown(code[6])["text/html"]
    assert "method" in shown(code[7])["text/html"]
