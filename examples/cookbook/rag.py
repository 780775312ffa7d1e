"""Answers from a folder of Markdown, by a prompt that feedback chooses.

export PGVECTOR_DSN=postgresql://user:password@host/database && qortex-db upgrade
python examples/cookbook/rag.py docs/vectors "How do I delete rows?"
"""

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from words import embed

from qortex_db import Database, Factor, QortexVector, VectorRecord

CODE = re.compile(r"^```.*?^```\n", re.MULTILINE | re.DOTALL)
PROMPTS = {
    "short": "Answer in one sentence.\n\n{passages}\n\nQuestion: {question}",
    "quoting": "Answer, and quote the passages.\n\n{passages}\n\nQuestion: {question}",
}


def llm(prompt: str) -> str:
    """Stands for a model of yours: the first sentence of the first passage."""
    return re.split(r"(?<=[.:])\s", prompt.split("\n\n")[2])[0]


def passages(path: Path) -> Iterator[VectorRecord]:
    """The parts of a file, from heading to heading; code is no text."""
    parts = re.split(r"^(?=#)", CODE.sub("", path.read_text()), flags=re.MULTILINE)
    for place, part in enumerate(parts):
        key, payload = f"{path.stem}-{place}", {"folder": str(path.parent)}
        if part.partition("\n")[2].strip():
            yield VectorRecord(key, payload=payload, document=part.strip()[:2_000])


async def index(db: Database, folder: Path) -> None:
    """Bring the table up to what the folder holds; only what is new is embedded."""
    vectors = db.collection(QortexVector, embedder=embed)
    files = await asyncio.to_thread(lambda: list(folder.glob("*.md")))
    records = [record for path in files for record in passages(path)]
    await vectors.ingest(records)
    gone = {"$not": {"$id": [record.id for record in records]}}
    await vectors.delete_where({"folder": str(folder), **gone})


async def answer(db: Database, question: str) -> tuple[str, str, list[str]]:
    """The answer, the prompt that was chosen for it, and the passages it has seen."""
    vectors = db.collection(QortexVector, embedder=embed)
    hits = await vectors.search(question, limit=3, boost=Factor())  # of use before: up
    prompt = (await db.arms.select("rag:prompts", list(PROMPTS))).selected[0]
    found = "\n\n".join(str(hit.document) for hit in hits)
    text = PROMPTS[prompt].format(passages=found, question=question)
    return llm(text), prompt, [hit.id for hit in hits]


async def learn(db: Database, prompt: str, sources: list[str], reward: float) -> None:
    """Learn from an answer, of its sources and of the prompt at once."""
    async with db.unit_of_work() as uow:
        said = "accepted" if reward else "rejected"
        await uow.factors.adjust(dict.fromkeys(sources, said))
        await uow.arms.observe("rag:prompts", prompt, reward=reward)


async def main(folder: str, *questions: str) -> None:
    async with Database.connect() as db:
        await index(db, Path(folder))
        print(f"{await db.vectors.count()} passages")
        for question in questions:
            said, prompt, sources = await answer(db, question)
            print(f"{question}\n  {said}\n  from {', '.join(sources)}")
            await learn(db, prompt, sources[:1], reward=1)  # as a person says
        learned = await db.arms.metrics("rag:prompts")
        print(f"{learned.total_pulls} answers learned from")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
