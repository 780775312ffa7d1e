"""Plans, and their sizes beside those of real tables."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from qortex_db import InvalidInputError
from qortex_db.cli import app
from qortex_db.planning import (
    MAX_PLANNED_ROWS,
    SIZE_TOLERANCE,
    Demand,
    Machine,
    index_bytes,
    make_plan,
    table_bytes,
)
from qortex_db.planning.measured import figures
from qortex_db.planning.sizes import key_bytes, lists_bytes
from qortex_db.repositories.vectors.search.index_settings import MAX_EF_SEARCH
from support.catalogue import execute

ROWS = 50_000
DOCS = Path(__file__).parents[2] / "docs"
INDEXES = {
    "full": "hnsw (vec vector_cosine_ops) WITH (ef_construction=32)",
    "half": "hnsw ((vec::halfvec(384)) halfvec_cosine_ops) WITH (ef_construction=32)",
    "binary": "hnsw ((binary_quantize(vec)::bit(384)) bit_hamming_ops) WITH (ef_construction=32)",
    "thick": "hnsw ((binary_quantize(vec)::bit(384)) bit_hamming_ops) WITH (m=32)",
    "lists": "ivfflat (vec vector_cosine_ops) WITH (lists=10)",
}


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_sizes_are_those_of_real_tables(dsn384: str) -> None:
    await execute(
        dsn384,
        "DROP INDEX ix_qortex_vectors_vec",
        "INSERT INTO qortex_vectors (id, vec) SELECT lpad(i::text, 36, '0'), "
        "ARRAY(SELECT random() - .5 FROM generate_series(1, 384) WHERE i > 0)::vector "
        f"FROM generate_series(1, {ROWS}) i",
    )
    predicted = {storage: index_bytes(ROWS, 384, storage) for storage in ("full", "half", "binary")}  # type: ignore[arg-type]
    predicted |= {"thick": index_bytes(ROWS, 384, "binary", 32), "lists": lists_bytes(ROWS, 384)}
    connection = await asyncpg.connect(dsn384)
    await connection.execute("SET maintenance_work_mem = '400MB'")
    real = {}
    for name, definition in INDEXES.items():
        await connection.execute(f"CREATE INDEX sized ON qortex_vectors USING {definition}")
        real[name] = await connection.fetchval("SELECT pg_relation_size('sized')")
        await connection.execute("DROP INDEX sized")
    predicted["table"] = table_bytes(ROWS, 384)
    real["table"] = await connection.fetchval("SELECT pg_table_size('qortex_vectors')")
    predicted["key"] = key_bytes(ROWS)
    real["key"] = await connection.fetchval(
        "SELECT pg_relation_size(conindid) FROM pg_constraint "
        "WHERE conrelid = 'qortex_vectors'::regclass AND contype = 'p'"
    )
    await connection.close()
    for name, size in real.items():
        assert predicted[name] == pytest.approx(size, rel=SIZE_TOLERANCE), name


def test_sizes_are_those_of_every_table_that_was_measured() -> None:
    """Of other dimensions too, where vectors lie beside their rows."""
    lines = figures()["builds"]
    assert {line["dimensions"] for line in lines} == {384, 768, 1_536}
    for line in lines:
        rows, dimensions = line["rows"], line["dimensions"]
        index = index_bytes(rows, dimensions, line["storage"], line["m"])
        assert index == pytest.approx(line["index_bytes"], rel=SIZE_TOLERANCE)
        table = table_bytes(rows, dimensions)
        assert table == pytest.approx(line["table_bytes"], rel=SIZE_TOLERANCE)


@pytest.mark.parametrize("dimensions", [64, 384, 768, 1_536, 3_072])
def test_more_rows_never_take_less(dimensions: int) -> None:
    plans = [make_plan(Demand(10**n, dimensions, 10.0)) for n in range(1, 11)]
    for less, more in itertools.pairwise(plans):
        assert more.table_bytes > less.table_bytes
        assert more.memory_bytes >= 0
        assert more.shards >= less.shards
    assert [plan.index for plan in plans[:5]] == ["none"] * 4 + ["hnsw"]
    assert not plans[3].is_extrapolated
    assert plans[-1].is_extrapolated


@pytest.mark.parametrize("rows", [1_000, 60_000, 10**7, 10**9])
def test_more_searches_more_recall_and_smaller_machines_never_want_fewer(rows: int) -> None:
    machines = [make_plan(Demand(rows, 768, qps)).machines for qps in (1, 10, 1_000, 50_000)]
    assert machines == sorted(machines)
    assert machines[-1] > 1
    recalls = [make_plan(Demand(rows, 768, 5_000, recall)) for recall in (0.5, 0.9, 0.95, 0.999)]
    wanted = [plan.machines for plan in recalls]
    assert wanted == sorted(wanted)
    small, large = (
        make_plan(Demand(rows, 768, 5_000), Machine(size << 30, cores)).machines
        for size, cores in ((16, 4), (256, 64))
    )
    assert small >= large


@pytest.mark.parametrize("rows", [10**6, 10**8, 10**9])
@pytest.mark.parametrize("recall", [0.8, 0.95, 0.99, 0.999])
def test_no_setting_is_more_than_pgvector_takes(rows: int, recall: float) -> None:
    for gigabytes in (16, 256, 2_000):
        plan = make_plan(Demand(rows, 768, 10.0, recall), Machine(gigabytes << 30))
        assert plan.value <= {"ef_search": MAX_EF_SEARCH, "oversampling": 100}[plan.setting]


def test_the_kind_of_index_is_by_what_fits() -> None:
    machine = Machine(64 << 30, 16)
    assert make_plan(Demand(10**7, 768, 1.0), machine).storage == "full"
    assert make_plan(Demand(2 * 10**7, 768, 1.0), machine).storage == "half"
    assert make_plan(Demand(10**8, 768, 1.0), machine).storage == "half"
    assert make_plan(Demand(10**8, 768, 1.0, 0.8), machine).storage == "binary"
    assert make_plan(Demand(10**7, 3_072, 1.0), machine).storage != "full"
    assert make_plan(Demand(10**9, 64, 1.0), machine).storage == "full"
    wide = make_plan(Demand(10**6, 16_000, 1.0), machine)
    assert wide.storage == "binary"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"rows": 0}, "rows"),
        ({"rows": MAX_PLANNED_ROWS + 1}, "rows"),
        ({"rows": 1.5}, "rows"),
        ({"dimensions": 16_001}, "dimensions"),
        ({"qps": 0}, "qps"),
        ({"qps": float("nan")}, "qps"),
        ({"qps": "many"}, "qps"),
        ({"recall": 1.0}, "recall"),
        ({"recall": 0.4}, "recall"),
        ({"recall": True}, "recall"),
        ({"payload_bytes": -1}, "payload_bytes"),
        ({"id_bytes": 0}, "id_bytes"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        Demand(**{"rows": 1_000, "dimensions": 384, "qps": 1.0, **options})


def test_machines_have_bounds_too() -> None:
    with pytest.raises(InvalidInputError, match="memory_bytes"):
        Machine(2**20)
    with pytest.raises(InvalidInputError, match="cores"):
        Machine(cores=0)


def test_the_command_says_units_and_what_is_extrapolated() -> None:
    words = ["plan", "--rows", "100e6", "--dimensions", "768", "--qps", "200", "--recall", "0.95"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    for word in ("GiB", "ms of a core", "shard(s)", "cores", "More rows than were measured"):
        assert word in " ".join(told.output.split())
    made = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    plan = make_plan(Demand(100_000_000, 768, 200.0, 0.95))
    assert (made["machines"], made["table_bytes"]) == (plan.machines, plan.table_bytes)


@pytest.mark.parametrize("rows", ["0", "nan", "inf", "1e30", "-5"])
def test_the_command_refuses_what_is_no_number_of_rows(rows: str) -> None:
    told = CliRunner().invoke(app, ["plan", "--rows", rows, "--dimensions", "8", "--qps", "1"])
    assert told.exit_code == 2
    assert "rows" in told.output


def test_the_page_has_the_plans_and_the_figures() -> None:
    spec = importlib.util.spec_from_file_location("generate_plan", DOCS / "generate_plan.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.PAGE.read_text() == generator.render()
