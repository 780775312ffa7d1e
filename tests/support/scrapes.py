"""A service in a process of its own, and what Prometheus reads of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from support.commands import ROOT

WORKER = ROOT / "tests" / "observability" / "exporting_worker.py"


def run(*arguments: object, **environment: str) -> Any:
    """Run the service; what it prints."""
    done = subprocess.run(
        [sys.executable, WORKER, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def samples(scrape: str) -> dict[str, list[Any]]:
    """By the names that a query says, a histogram's without its suffix."""
    found: dict[str, list[Any]] = {}
    for family in text_string_to_metric_families(scrape):
        for sample in family.samples:
            name = re.sub("_(bucket|count|sum)$", "", sample.name)
            found.setdefault(name, []).append(sample)
    return found
