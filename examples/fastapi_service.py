"""A service with a memory: store and search documents, learn from feedback, say how it is.

    pip install qortex-db fastapi uvicorn
    export PGVECTOR_DSN=postgresql://user:password@host/database
    qortex-db upgrade
    uvicorn --app-dir examples fastapi_service:app

It takes embeddings as they are. To take text, compute them where `Query.embedding` is read, with
the model that the stored ones came from (await it in a thread: a model blocks the event loop).
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from qortex_db import (
    MAX_LIMIT,
    ConflictError,
    Database,
    InvalidInputError,
    LockTimeoutError,
    NotFoundError,
    QortexDbError,
    QueryTimeoutError,
    SchemaVersionError,
    SerializationConflictError,
    Settings,
    UnavailableError,
    UnitOfWork,
    migrations,
)

T = TypeVar("T")

# The first that fits; what is not listed is 500.
STATUSES: dict[type[QortexDbError], int] = {
    InvalidInputError: 422,
    NotFoundError: 404,
    ConflictError: 409,
    SerializationConflictError: 409,
    LockTimeoutError: 503,
    UnavailableError: 503,
    SchemaVersionError: 503,
    QueryTimeoutError: 504,
}

Id = Annotated[str, Field(min_length=1, max_length=1024)]
Embedding = Annotated[list[float], Field(min_length=1, max_length=16_000)]


class Document(BaseModel):
    """What is stored: an embedding, the text it came from, and what to filter by."""

    id: Id
    embedding: Embedding
    document: str | None = None
    payload: dict[str, Any] | None = None


class Query(BaseModel):
    """What is looked for."""

    embedding: Embedding
    limit: int = Field(10, ge=1, le=min(100, MAX_LIMIT))
    min_score: float = Field(0, ge=0, le=1)


class Hit(BaseModel):
    """A document found; a higher score is better."""

    id: str
    score: float
    document: str | None
    payload: dict[str, Any]


class Feedback(BaseModel):
    """What became of an answer: of its sources, and of the prompt that made it."""

    outcomes: dict[Id, Literal["accepted", "rejected", "partial"]] = Field(max_length=1000)
    arm: Id
    reward: float = Field(ge=0, le=1)


class Learned(BaseModel):
    """What is believed after some feedback."""

    weights: dict[str, float]
    arm_mean: float


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold one Database for as long as the service runs; it opens on an unmigrated one too."""
    async with Database.connect() as app.state.db:
        yield


app = FastAPI(title="A service with a memory", lifespan=lifespan)


def database(request: Request) -> Database:
    """The Database, for calls by themselves."""
    db: Database = request.app.state.db
    return db


Memory = Annotated[Database, Depends(database)]


async def transaction(db: Memory) -> AsyncIterator[UnitOfWork]:
    """A unit of work for one request: an exception rolls all of it back."""
    async with db.unit_of_work() as uow:
        yield uow


# "function": it commits before the answer is sent, so that a failed commit is not a 200.
Transaction = Annotated[UnitOfWork, Depends(transaction, scope="function")]


@app.exception_handler(QortexDbError)
async def failed(_request: Request, error: QortexDbError) -> JSONResponse:
    """An error of the database as a status; its message quotes no value."""
    status = next((code for kind, code in STATUSES.items() if isinstance(error, kind)), 500)
    return JSONResponse({"detail": str(error)}, status)


@app.exception_handler(RequestValidationError)
async def refused(_request: Request, error: RequestValidationError) -> JSONResponse:
    """What FastAPI says of a bad request, without the values: an embedding is long, or is NaN."""
    detail = [{"loc": one["loc"], "msg": one["msg"]} for one in error.errors()]
    return JSONResponse({"detail": detail}, 422)


async def while_connected(request: Request, call: Coroutine[Any, Any, T]) -> T:
    """Run a call; if the client goes away meanwhile, stop it, on the server too."""
    task = asyncio.ensure_future(call)
    gone = asyncio.ensure_future(request.receive())  # after the body, nothing else comes
    gone.add_done_callback(lambda _: task.cancel())
    try:
        return await task
    except asyncio.CancelledError:
        if not gone.done():
            raise
        raise HTTPException(499, "The client went away.") from None
    finally:
        gone.cancel()


@app.post("/v1/documents")
async def store(db: Memory, documents: Annotated[list[Document], Field(max_length=1000)]) -> int:
    """Insert or update; return how many were written."""
    return await db.vectors.upsert([document.model_dump() for document in documents])


@app.post("/v1/search")
async def search(request: Request, db: Memory, query: Query) -> list[Hit]:
    """The nearest documents, each score times what feedback made of its weight, best first."""
    looking = db.vectors.search(query.embedding, limit=query.limit, min_score=query.min_score)
    found = await while_connected(request, looking)
    weights = await db.factors.get([hit.id for hit in found])
    hits = [
        Hit(
            id=hit.id,
            score=hit.score * weights[hit.id],
            document=hit.document,
            payload=dict(hit.payload or {}),
        )
        for hit in found
    ]
    return sorted(hits, key=lambda hit: hit.score, reverse=True)


@app.post("/v1/feedback")
async def feedback(uow: Transaction, given: Feedback) -> Learned:
    """Learn from both at once, or from neither."""
    weights = await uow.factors.adjust(given.outcomes)
    state = await uow.arms.observe("prompts", given.arm, reward=given.reward)
    return Learned(weights=weights, arm_mean=state.mean)


@app.get("/v1/status")
async def status(db: Memory) -> dict[str, Any]:
    """Versions, sizes and the pool. It counts rows: for people, not for probes."""
    return (await db.status()).to_dict()


@app.get("/healthz")
async def alive() -> dict[str, str]:
    """Whether the process answers; nothing that a restart would not mend."""
    return {"status": "ok"}


@app.get("/readyz")
async def ready(response: Response) -> dict[str, str | None]:
    """Whether requests can be served: the server answers, and its schema is current."""
    try:
        state = await migrations.check(Settings())
    except SchemaVersionError:
        # A newer release migrated it, which adds to it: this one serves until it is replaced.
        return {"current": "newer", "head": migrations.head_revision()}
    if not state.is_current:
        response.status_code = 503
    return {"current": state.current, "head": state.head}
