"""What others hold, brought here; and what is here, kept in files."""

from __future__ import annotations

from qortex_db.transfer.archive.exporting import export
from qortex_db.transfer.archive.manifest import Manifest
from qortex_db.transfer.archive.parts import ArchiveProgress
from qortex_db.transfer.archive.restoring import restore
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
    "ArchiveProgress",
    "Choices",
    "Difference",
    "ImportPlan",
    "ImportReport",
    "Manifest",
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
    "export",
    "import_collection",
    "import_qortex_memory",
    "open_source",
    "plan_import",
    "restore",
]
