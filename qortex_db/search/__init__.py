"""What a search is narrowed by, the indexes that serve it, and how hits are chosen: no I/O."""

from qortex_db.search.diversity import most_diverse
from qortex_db.search.fields import read_path
from qortex_db.search.filters import Filter, Where, read_filter, with_document
from qortex_db.search.indexes import Kind, payload_index
from qortex_db.search.texts import check_query

__all__ = [
    "Filter",
    "Kind",
    "Where",
    "check_query",
    "most_diverse",
    "payload_index",
    "read_filter",
    "read_path",
    "with_document",
]
