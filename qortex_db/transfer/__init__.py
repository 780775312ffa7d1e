"""What others hold, brought here; and what is here, kept in files."""

from __future__ import annotations

from qortex_db.transfer.comparing import Difference, Overlap
from qortex_db.transfer.importing import ImportReport, import_collection
from qortex_db.transfer.planning import Choices, ImportPlan, plan_import
from qortex_db.transfer.qortex_memory import MemoryPart, import_qortex_memory
from qortex_db.transfer.source import (
    Page,
    Source,
    SourceDescription,
    SourceIndex,
    SourceReject,
    SourceRow,
    SourceVector,
    SparseComponents,
)
from qortex_db.transfer.sources import SOURCES, open_source

__all__ = [
    "SOURCES",
    "Choices",
    "Difference",
    "ImportPlan",
    "ImportReport",
    "MemoryPart",
    "Overlap",
    "Page",
    "Source",
    "SourceDescription",
    "SourceIndex",
    "SourceReject",
    "SourceRow",
    "SourceVector",
    "SparseComponents",
    "import_collection",
    "import_qortex_memory",
    "open_source",
    "plan_import",
]
