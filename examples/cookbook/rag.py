"""Answers from a folder of Markdown, by a prompt that feedback chooses.

export PGVECTOR_DSN=postgresql://user:password@host/database
qortex-db upgrade
python examples/cookbook/rag.py docs/vectors "How do I delete rows?" "What is a namespace?"
"""

import asyncio
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from words import embed

from qortex_db import Database, Factor, QortexVector, SearchHit, SearchHits, VectorRecord

PROMPTS = {
    "short": "Answer in one sentence.\n\n{passages}\n\nQuestion: {question}",
    "quoting": "Answer, and quote the passages.\n\n{passages}\n\nQuestion: {question}",
}


def llm(prompt: str) -> str:
    """Stands for a model of yours: the first sentence of the first passage."""
    return re.split(r"(?<=[.:])\s", prompt.split("\n\n")[2])[0]


def passages(path: Path) -> Iterator[VectorRecord]:
    """The parts of a file, from heading to heading; code is no text."""
    text = re.sub(r"^```.*?^```\n", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for place, part in enumerate(re.split(r"^(?=#)", text, flags=re.MULTILINE)):
        if part.partition("\n")[2].strip():
            key = f"{path.stem}-{place}"
            yield VectorRecord(key, payload={"file": path.name}, document=part.strip()[:2_000])


async def index(db: Database, folder: Path) -> None:
    """Bring the table up to what the folder holds; what has not changed is not embedded again."""
    vectors = db.collection(QortexVector, embedder=embed)
    files = await asyncio.to_thread(lambda: sorted(folder.glob("*.md")))
    for path in files:
        records = list(passages(path))
        await vectors.upsert(records)
        gone = {"file": path.name, "$not": {"$id": [record.id for record in records]}}
        await vectors.delete_where(gone)


async def answer(db: Database, question: str) -> tuple[str, str, SearchHits]:
    """The answer, the prompt that was chosen for it, and what it was made of."""
    vectors = db.collection(QortexVector, embedder=embed)
    # What was of use before counts for more.
    hits = await vectors.search(question, limit=3, boost=Factor())
    prompt = (await db.arms.select("rag:prompts", list(PROMPTS))).selected[0]
    found = "\n\n".join(hit.document or "" for hit in hits)
    return llm(PROMPTS[prompt].format(passages=found, question=question)), prompt, hits


async def feedback(db: Database, prompt: str, hits: Sequence[SearchHit], *, good: bool) -> None:
    """Learn from an answer, of its sources and of the prompt at once."""
    async with db.unit_of_work() as uow:
        await uow.factors.adjust({hit.id: "accepted" if good else "rejected" for hit in hits})
        await uow.arms.observe("rag:prompts", prompt, reward=float(good))


async def main(folder: str, *questions: str) -> None:
    async with Database.connect() as db:
        await index(db, Path(folder))
        print(f"{await db.vectors.count()} passages")
        for question in questions:
            said, prompt, hits = await answer(db, question)
            print(f"{question}\n  {said}\n  from {', '.join(hit.id for hit in hits)}")
            await feedback(db, prompt, hits[:1], good=True)  # here a person says so
        print(f"{(await db.arms.metrics('rag:prompts')).total_pulls} answers learned from")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
