"""The contenders: their environments, the tables they keep vectors in, and their processes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
ENVIRONMENTS = HERE / ".venvs"


@dataclass(frozen=True)
class Peer:
    """A contender.

    Attributes:
        title: What the report calls it.
        table: Where it keeps vectors, in a database of its own; "" where it shares ours with its
            index, or has no server.
        column: In which column.
        requirements: What its environment holds; empty for ours.
        is_server: Whether it works on PostgreSQL; else on files, in its own process.
    """

    name: str
    title: str
    table: str = ""
    column: str = "vec"
    requirements: tuple[str, ...] = ()
    is_server: bool = True


def _inside(name: str, title: str, *requirements: str) -> Peer:
    return Peer(name, title, requirements=(*requirements, "numpy>=1.26"), is_server=False)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("raw", "asyncpg by hand, no reset"),
        Peer("raw_pool", "asyncpg's pool as it comes"),
        Peer("ours", "**qortex-db**"),
        Peer("ours_unsynced", "**qortex-db**, synchronous_commit = off"),
        Peer("ours_otel", "**qortex-db**, OpenTelemetry"),
        Peer("ours_otel_methods", "**qortex-db**, OpenTelemetry, no spans of statements"),
        Peer("ours_host", "**qortex-db** on a host's engine"),
        Peer("ours_host_lifo", "**qortex-db** on a host's engine, LIFO"),
        Peer("ours_host_otel", "**qortex-db** on a host's engine, OpenTelemetry"),
        Peer("orm", "naive SQLAlchemy ORM"),
        Peer(
            "qortex",
            "qortex 0.8.1",
            table="qortex_vectors",
            column="embedding",
            requirements=("qortex==0.8.1", "asyncpg==0.32.0", "pgvector==0.4.2"),
        ),
        Peer(
            "langchain",
            "langchain-postgres 0.0.19",
            table="items",
            column="embedding",
            requirements=("langchain-postgres==0.0.19",),
        ),
        Peer("vecs", "vecs 0.4.5", table="vecs.items", requirements=("vecs==0.4.5",)),
        _inside("chroma", "Chroma 1.5.9, in its process", "chromadb==1.5.9"),
        _inside("milvus", "Milvus Lite 3.2.2", "pymilvus==3.0.2", "milvus-lite==3.2.2"),
        _inside("lancedb", "LanceDB 0.40.0", "lancedb==0.40.0"),
        _inside("sqlite_vec", "sqlite-vec 0.1.9", "sqlite-vec==0.1.9", "apsw"),
        _inside(
            "qdrant",
            "qdrant-client 1.20.0, local mode in memory (not its server)",
            "qdrant-client==1.20.0",
        ),
        _inside("faiss", "FAISS 1.15.1, an index in memory", "faiss-cpu==1.15.1"),
    )
}


def environment(peer: Peer) -> Path:
    """The Python of a contender; its environment is made at the first use."""
    if not peer.requirements:
        return Path(sys.executable)
    folder = ENVIRONMENTS / peer.name
    python = folder / "bin" / "python"
    stamp = folder / "requirements"
    wanted = "\n".join(peer.requirements)
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"Making an environment for {peer.title} ...", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        options = ["--quiet", "--disable-pip-version-check"]
        subprocess.run([python, "-m", "pip", "install", *options, *peer.requirements], check=True)
        stamp.write_text(wanted)
    return python


class Process:
    """A contender at work in a process of its own."""

    def __init__(self, peer: Peer, process: asyncio.subprocess.Process) -> None:
        self.peer = peer
        self._process = process
        self.pid = process.pid
        self.about = ""
        """What it says of itself, such as its library's version."""

    @classmethod
    async def start(cls, peer: Peer, place: str, folder: Path) -> Self:
        """Start one.

        Args:
            place: A DSN, or a folder of its own.
            folder: With the data.
        """
        process = await asyncio.create_subprocess_exec(
            environment(peer),
            HERE / "worker.py",
            peer.name,
            place,
            folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 26,
        )
        started = cls(peer, process)
        started.about = (await started._answer()).get("about", "")
        return started

    async def do(self, work: str, **arguments: Any) -> dict[str, Any]:
        """Have a work done.

        Raises:
            RuntimeError: The contender failed at it.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"work": work, **arguments}).encode() + b"\n")
        answer = await self._answer()
        if "error" in answer:
            raise RuntimeError(f"{self.peer.name}, {work}: {answer['error']}")
        return answer

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 600)
        if not line:
            raise RuntimeError(f"{self.peer.name} ended before it answered.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
