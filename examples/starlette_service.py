"""A small service with Starlette alone: store, search, learn, say whether it is ready.

pip install qortex-db starlette uvicorn
export PGVECTOR_DSN=postgresql://user:password@host/database
qortex-db upgrade
uvicorn --app-dir examples starlette_service:app
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from qortex_db import (
    Database,
    InvalidInputError,
    QortexDbError,
    SchemaVersionError,
    UnavailableError,
    migrations,
)


class State(TypedDict):
    """What each request finds in `request.state`."""

    db: Database


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[State]:
    """Hold one Database for as long as the service runs."""
    async with Database.connect() as db:
        yield {"db": db}


async def body(request: Request) -> dict[str, Any]:
    """A request's JSON object."""
    try:
        given = await request.json()
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise InvalidInputError("The body is no JSON object.")
    return given


async def store(request: Request) -> JSONResponse:
    """Store documents: all of them, or none."""
    documents = (await body(request)).get("documents", [])
    return JSONResponse({"stored": await request.state.db.vectors.upsert(documents)})


async def search(request: Request) -> JSONResponse:
    """Find the nearest; what users made of them counts too."""
    given = await body(request)
    db: Database = request.state.db
    hits = await db.vectors.search(
        given.get("embedding", []), limit=given.get("limit", 10), where=given.get("where")
    )
    weights = await db.factors.get([hit.id for hit in hits])
    best = sorted(hits, key=lambda hit: hit.score * weights[hit.id], reverse=True)
    return JSONResponse([{"id": hit.id, "score": hit.score, **hit.payload} for hit in best])


async def feedback(request: Request) -> JSONResponse:
    """Learn from an answer, in one transaction: its sources, and the prompt that made it."""
    given = await body(request)
    async with request.state.db.unit_of_work() as uow:
        weights = await uow.factors.adjust(given.get("outcomes", {}))
        state = await uow.arms.observe(
            "prompts", given.get("arm", ""), reward=given.get("reward", 0)
        )
    return JSONResponse({"weights": weights, "mean": state.mean})


async def ready(_request: Request) -> JSONResponse:
    """Whether the server answers and its schema is current."""
    try:
        state = await migrations.check()
    except SchemaVersionError:  # a newer release migrated it: this one serves until it is replaced
        return JSONResponse({"current": "newer"})
    return JSONResponse({"current": state.current}, 200 if state.is_current else 503)


async def failed(_request: Request, error: Exception) -> JSONResponse:
    """An error of the database as a status; its message quotes no value."""
    bad = isinstance(error, InvalidInputError)
    away = isinstance(error, UnavailableError | SchemaVersionError)
    return JSONResponse({"detail": str(error)}, 422 if bad else 503 if away else 500)


app = Starlette(
    routes=[
        Route("/documents", store, methods=["POST"]),
        Route("/search", search, methods=["POST"]),
        Route("/feedback", feedback, methods=["POST"]),
        Route("/readyz", ready),
    ],
    exception_handlers={QortexDbError: failed},
    lifespan=lifespan,
)
