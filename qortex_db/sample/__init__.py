"""A sample of real text: docstrings of Python's standard library, with real embeddings."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """Passages and questions with their embeddings, float32 of 384 dimensions and unit length."""

    passages: list[dict[str, Any]]
    passage_embeddings: NDArray[np.float32]
    questions: list[dict[str, Any]]
    question_embeddings: NDArray[np.float32]

    def records(self) -> Iterator[dict[str, Any]]:
        """The passages as records to ingest."""
        for passage, embedding in zip(self.passages, self.passage_embeddings, strict=True):
            payload = {"module": passage["module"], "kind": passage["kind"]}
            yield {
                "id": passage["id"],
                "embedding": embedding,
                "payload": payload,
                "document": passage["text"],
            }


def load_sample() -> Sample:
    """Read the sample from the package."""
    folder = resources.files(__package__)

    def lines(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]

    def array(name: str) -> NDArray[np.float32]:
        return np.load(io.BytesIO((folder / name).read_bytes())).astype(np.float32)  # type: ignore[no-any-return]

    return Sample(
        lines("passages.jsonl"),
        array("passages.npy"),
        lines("queries.jsonl"),
        array("queries.npy"),
    )
