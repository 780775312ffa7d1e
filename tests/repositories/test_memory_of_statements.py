"""What is kept of statements, by processes that never ask in the same way again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("shapes_worker.py")
MOST = 50.0
"""Megabytes; asking with the 200 MB of values kept would take as much."""


@pytest.mark.faults
@pytest.mark.timeout(240)
def test_ever_new_shapes_values_and_collections_take_no_more_than_50_mb(dsn: str) -> None:
    command = [sys.executable, WORKER, dsn, "5000", "300"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    taken = [float(number) for number in done.stdout.split()]
    assert max(taken) < MOST, taken
