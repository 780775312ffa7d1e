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
        table: Where it keeps vectors.
        column: In which column.
        requirements: What its environment holds; empty for ours.
        ours_schema: Whether it works on the tables of our migrations.
    """

    name: str
    title: str
    table: str = "qortex_vectors"
    column: str = "vec"
    requirements: tuple[str, ...] = ()
    ours_schema: bool = False


PEERS = {
    peer.name: peer
    for peer in (
        Peer("raw", "asyncpg by hand, no reset", ours_schema=True),
        Peer("raw_pool", "asyncpg's pool as it comes", ours_schema=True),
        Peer("ours", "**qortex-db**", ours_schema=True),
        Peer("ours_host", "**qortex-db** on a host's engine", ours_schema=True),
        Peer(
            "qortex",
            "qortex 0.8.1",
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
        Peer("orm", "naive SQLAlchemy ORM", table="items", column="embedding"),
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

    @classmethod
    async def start(cls, peer: Peer, dsn: str, folder: Path) -> Self:
        process = await asyncio.create_subprocess_exec(
            environment(peer),
            HERE / "worker.py",
            peer.name,
            dsn,
            folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 26,
        )
        started = cls(peer, process)
        await started._answer()
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
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
