"""The tables of the revision qortex_db_0001, as data to compare an adopted table with.

They say the same as that revision, which never changes, in the words of the server's catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

REVISION: Final = "qortex_db_0001"


@dataclass(frozen=True, slots=True)
class Column:
    """A column; an optional one comes with a later revision, and qortex may have it already."""

    name: str
    type: str
    default: str | None = None
    not_null: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class IndexShape:
    """What makes an index do its work, whatever it is called."""

    name: str
    method: str
    columns: tuple[str, ...]
    operator_class: str


@dataclass(frozen=True, slots=True)
class BaselineTable:
    """A table as the baseline makes it.

    Attributes:
        doubts: Rows that qortex could write and our methods don't take, by what to say of them.
        refused: Rows that a later revision refuses, likewise.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    index: IndexShape | None = None
    doubts: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def key_name(self) -> str:
        """The name of its primary key."""
        return f"pk_{self.name}"


def _text(name: str) -> Column:
    return Column(name, "text", not_null=True)


def _time(name: str, *, optional: bool = False) -> Column:
    return Column(name, "timestamp with time zone", "now()", optional=optional)


def _bad_id(name: str) -> str:
    return f"octet_length({name}) NOT BETWEEN 1 AND 1024"


def _no_number(name: str) -> str:
    return f"{name} IN ('NaN', 'Infinity', '-Infinity')"


_ID_DOUBT: Final = "whose key is empty or longer than 1,024 bytes, which methods refuse"

VECTORS: Final = BaselineTable(
    "qortex_vectors",
    (_text("id"), Column("vec", "vector"), _time("created_at", optional=True)),
    ("id",),
    IndexShape("ix_qortex_vectors_vec", "hnsw", ("vec",), "vector_cosine_ops"),
    {
        _ID_DOUBT: _bad_id("id"),
        "without a vector, which no search finds": "vec IS NULL",
    },
)
TABLES: Final = (  # in the order in which they are locked
    VECTORS,
    BaselineTable(
        "interoception_factors",
        (
            _text("node_id"),
            Column("weight", "double precision", "1.0", not_null=True),
            _time("updated_at"),
        ),
        ("node_id",),
        doubts={
            _ID_DOUBT: _bad_id("node_id"),
            "with a weight that is no number": _no_number("weight"),
        },
    ),
    BaselineTable(
        "interoception_edge_buffer",
        (
            _text("src_id"),
            _text("tgt_id"),
            Column("hit_count", "integer", "0", not_null=True),
            Column("scores", "jsonb", "'[]'::jsonb", not_null=True),
            _time("last_seen"),
        ),
        ("src_id", "tgt_id"),
        doubts={
            _ID_DOUBT: f"{_bad_id('src_id')} OR {_bad_id('tgt_id')}",
            "whose src_id is not the smaller of the pair": 'src_id COLLATE "C" > tgt_id',
            "with a negative hit_count": "hit_count < 0",
            "with scores that are no JSON array": "jsonb_typeof(scores) <> 'array'",
        },
    ),
    BaselineTable(
        "learning_arm_states",
        (
            _text("learner_name"),
            _text("context_hash"),
            _text("arm_id"),
            Column("alpha", "double precision", "1.0", not_null=True),
            Column("beta", "double precision", "1.0", not_null=True),
            Column("pulls", "integer", "0", not_null=True),
            Column("total_reward", "double precision", "0.0", not_null=True),
            _time("last_updated"),
        ),
        ("learner_name", "context_hash", "arm_id"),
        IndexShape(
            "idx_learning_arm_states_context", "btree", ("learner_name", "context_hash"), "text_ops"
        ),
        {
            _ID_DOUBT: f"{_bad_id('learner_name')} OR {_bad_id('arm_id')}",
            "with a total_reward that is no number": _no_number("total_reward"),
        },
        refused={
            "whose alpha and beta are not both positive numbers: mend or delete such arms": (
                f"alpha <= 0 OR beta <= 0 OR {_no_number('alpha')} OR {_no_number('beta')}"
            ),
            "with negative pulls: mend or delete such arms": "pulls < 0",
        },
    ),
)
