"""What a search is narrowed by: filters over payloads, and the indexes that serve them."""

from qortex_db.search.filters import Filter, Where, read_filter
from qortex_db.search.indexes import Kind, payload_index

__all__ = ["Filter", "Kind", "Where", "payload_index", "read_filter"]
