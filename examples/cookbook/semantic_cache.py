"""Answers of a language model, kept for a while for questions that mean the same.

Each model has a namespace: what another one would say is no answer.

export PGVECTOR_DSN=postgresql://user:password@host/database
python examples/cookbook/semantic_cache.py
"""

import asyncio
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import DeclarativeBase
from words import DIMENSIONS, embed

from qortex_db import ALL_NAMESPACES, Collection, Database, VectorMixin, VectorSpec

ALIKE = 0.85  # too low gives wrong answers, too high asks again: measure yours


class Base(DeclarativeBase):
    """The host's."""


class Answer(VectorMixin, Base):
    __tablename__ = "answers"
    __collection__ = Collection(VectorSpec(DIMENSIONS), namespace="model")


async def ask(
    db: Database,
    question: str,
    *,
    model: str,
    llm: Callable[[str], str],
    lasts: timedelta = timedelta(days=1),
) -> tuple[str, bool]:
    """The answer, and whether it was known."""
    answers = db.collection(Answer, namespace=model, embedder=embed)
    now = datetime.now(UTC)
    lasting = {"until": {"$gt": now}}
    if known := await answers.search(question, limit=1, min_score=ALIKE, where=lasting):
        return known[0].payload["answer"], True
    said = await asyncio.to_thread(llm, question)
    key = hashlib.sha256(f"{model}: {question}".encode()).hexdigest()
    payload = {"answer": said, "until": now + lasts}
    await answers.upsert([{"id": key, "document": question, "payload": payload}])
    return said, False


async def sweep(db: Database) -> int:
    """Delete what has expired, of every model; once an hour or so."""
    answers = db.collection(Answer, namespace=ALL_NAMESPACES)
    return await answers.delete_where({"until": {"$lte": datetime.now(UTC)}})


async def main() -> None:
    def llm(question: str) -> str:  # yours
        return f"an answer of {len(question)} letters"

    async with Database.connect() as db:
        async with db.engine.begin() as connection:  # elsewhere a revision
            await connection.run_sync(Base.metadata.create_all)
        for model, question in (
            ("small", "How do I reset my password?"),
            ("small", "How can I reset my password"),
            ("small", "How do I change my address?"),
            ("large", "How do I reset my password?"),
        ):
            said, known = await ask(db, question, model=model, llm=llm)
            print(f"{model}: {question} {said}{', from the cache' if known else ''}")
        await ask(db, "What is new?", model="small", llm=llm, lasts=timedelta(0))
        print(f"{await sweep(db)} expired")


if __name__ == "__main__":
    asyncio.run(main())
