"""The example of a service, served by uvicorn over real sockets."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

from support.commands import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EXAMPLES = ROOT / "examples"


@asynccontextmanager
async def served(dsn: str, **environment: str) -> AsyncIterator[httpx.AsyncClient]:
    """The service on a port that the system chose, and a client to it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "uvicorn", "--app-dir", str(EXAMPLES), "fastapi_service:app"),
        *("--host", "127.0.0.1", "--port", "0"),
        env=os.environ | {"PGVECTOR_DSN": dsn} | environment,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    log = ""
    while (found := re.search(r"running on (http://127\.0\.0\.1:\d+)", log)) is None:
        line = await asyncio.wait_for(process.stderr.readline(), 30)
        assert line, log
        log += line.decode()
    try:
        async with httpx.AsyncClient(
            base_url=found[1],
            trust_env=False,
            timeout=30,
            headers={"content-type": "application/json"},  # else FastAPI sees no list and no object
        ) as client:
            yield client
    finally:
        process.terminate()
        _, rest = await asyncio.wait_for(process.communicate(), 30)
    # uvicorn ends by the signal that it was asked to stop by, once it has shut down in order.
    assert "Application shutdown complete" in rest.decode()
    assert "Traceback" not in rest.decode()
