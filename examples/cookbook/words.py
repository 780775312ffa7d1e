"""An embedder that stands for a model, so that the cookbook runs offline.

It knows no meaning: texts that share words, or parts of words, are near to each
other. For meaning, in its place:

    embed = Embedder(SentenceTransformer("all-MiniLM-L6-v2"), name="all-MiniLM-L6-v2")
"""

import hashlib
import re

import numpy as np

DIMENSIONS = 384
COMMON = re.compile(
    r"(?:an?|are|as|at|be|by|can|do|for|how|in?|is|it|of|on|or|that|the|to|and)\Z"
)


def embed(texts: list[str]) -> np.ndarray:
    """An embedding of each text, of unit length."""
    made = np.zeros((len(texts), DIMENSIONS))
    for row, text in enumerate(texts):
        for word in set(re.findall(r"\w+", text.lower())):
            if COMMON.match(word):
                continue
            parts = [word, *(f" {word} "[i : i + 4] for i in range(len(word) - 1))]
            for part in parts:
                number = int.from_bytes(
                    hashlib.blake2b(part.encode(), digest_size=8).digest()
                )
                made[row, number % DIMENSIONS] += (1 if number >> 63 else -1) / len(
                    parts
                )
    made[:, 0] += ~made.any(
        axis=1
    )  # a text without words is near to others of its kind
    return made / np.linalg.norm(made, axis=1, keepdims=True)
