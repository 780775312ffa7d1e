"""What may be wrong with a database: read in a few statements, judged by pure functions."""

from qortex_db.doctor.examination import diagnose, examine
from qortex_db.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "diagnose", "examine"]
