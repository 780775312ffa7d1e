"""What others hold, brought here; and what is here, kept in files."""

from qortex_db.transfer.archive.exporting import export
from qortex_db.transfer.archive.manifest import Manifest
from qortex_db.transfer.archive.parts import ArchiveProgress
from qortex_db.transfer.archive.restoring import restore

__all__ = ["ArchiveProgress", "Manifest", "export", "restore"]
