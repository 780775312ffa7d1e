"""What a source's vector index is here."""

from __future__ import annotations

from qortex_db.models.vector_spec import HNSW


def clamped_hnsw(m: int, ef_construction: int, vector: str) -> tuple[HNSW, list[str]]:
    """The graph that pgvector builds for these figures, and a note where it takes others.

    Args:
        vector: The vector's name, for the note.
    """
    kept_m = min(max(m, 2), 100)
    kept_ef = min(max(ef_construction, 4, 2 * kept_m), 1_000)
    if (kept_m, kept_ef) == (m, ef_construction):
        return HNSW(m=m, ef_construction=ef_construction), []
    note = (
        f"The graph of {called(vector)} has m={m} and ef_construction={ef_construction}; pgvector "
        f"takes m from 2 to 100 and ef_construction from twice m to 1,000: it is built with "
        f"m={kept_m} and ef_construction={kept_ef}."
    )
    return HNSW(m=kept_m, ef_construction=kept_ef), [note]


def called(vector: str) -> str:
    """A vector's name in a sentence."""
    return f"the vector {vector!r}" if vector else "the vector"
