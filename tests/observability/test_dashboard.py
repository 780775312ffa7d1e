"""The dashboard, the alerts and the page know the metrics that there are, by name and label."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from support.commands import ROOT
from support.scrapes import run, samples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qortex_db.testing import Server

FOLDER = ROOT / "examples" / "observability"
PAGE = (ROOT / "docs" / "operations" / "observability.md").read_text()
OF_PROMETHEUS = {"le", "instance", "job"}


@pytest.fixture(scope="module")
def labels(server: Server, template: str) -> dict[str, set[str]]:
    """Of every metric that a service has."""
    with server.database(template) as dsn, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        found = samples(run(dsn, port, "has none")["scrape"])
    scraped = {
        name: {label for one in all_of for label in one.labels if not label.startswith("otel_")}
        - OF_PROMETHEUS
        for name, all_of in found.items()
        if name.startswith("qortex_") and not name.endswith("_created")
    }
    return {"qortex_reads_total": {"answered_by"}, **scraped}  # for which it takes a replica


def _queries() -> Iterator[str]:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        assert panel["description"]
        yield from (target["expr"] for target in panel["targets"])
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def test_every_query_names_metrics_and_labels_that_there_are(
    labels: dict[str, set[str]],
) -> None:
    used: set[str] = set()
    for query in _queries():
        named = set(re.findall(r"\bqortex_\w+", query))
        assert named, query
        metrics = {re.sub("_(bucket|count|sum)$", "", name) for name in named}
        assert metrics <= labels.keys(), query
        known = set().union(*(labels[name] for name in metrics)) | OF_PROMETHEUS
        lists = re.findall(r"\b(?:by|on|without) \(([^)]*)\)", query)
        asked = {name for one in lists for name in re.findall(r"\w+", one)}
        asked |= set(re.findall(r"(\w+)\s*(?:=~|!=|=)\s*\"", query))
        assert asked <= known, query
        used |= metrics
    # No figure is left out of the dashboard but those of single calls.
    assert labels.keys() - used == {"qortex_reads_total", "qortex_vec_search_candidates", *ADDED}


ADDED = {"qortex_vec_add_duration_seconds"}


def test_the_alerts_tell_by_labels_that_their_queries_keep(labels: dict[str, set[str]]) -> None:
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
            kept = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
            for name in told:
                assert not kept or any(name in one for one in kept), rule["alert"]
            assert rule["annotations"]["runbook"]


def test_the_page_has_each_metric_with_its_labels(labels: dict[str, set[str]]) -> None:
    rows = re.findall(
        r"^\| (`qortex_[^|]*) \|([^|]*)\|", PAGE.partition("## Spans")[0], re.MULTILINE
    )
    told = {
        name: set(re.findall(r"\w+", of))
        for names, of in rows
        for name in re.findall(r"\w+", names)
    }
    assert told == labels


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed here")
def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    for what, file in (("config", "prometheus.yaml"), ("rules", "alerts.yaml")):
        command = ["promtool", "check", what, file]
        done = subprocess.run(
            command, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr


def test_the_page_has_each_event() -> None:
    source = "".join(
        path.read_text() for path in (ROOT / "qortex_db").rglob("*.py") if "cli" not in path.parts
    )
    events = set(re.findall(r"\blog\.(?:info|warning)\(\s*\"(\w+)\"", source))
    assert len(events) > 25
    assert events - set(re.findall(r"`(\w+)`", PAGE)) == set()
