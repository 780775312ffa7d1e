"""Filters over payloads and documents, and the indexes that serve them: no I/O."""

from qortex_db.filters.fields import check_readable, read_path
from qortex_db.filters.payload_indexes import Kind, payload_index
from qortex_db.filters.reader import Filter, Where, read_filter, values_of, with_document

__all__ = [
    "Filter",
    "Kind",
    "Where",
    "check_readable",
    "payload_index",
    "read_filter",
    "read_path",
    "values_of",
    "with_document",
]
