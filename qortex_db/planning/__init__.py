"""What so many vectors want of machines: pure functions over measured figures, no I/O.

`measured.json` is written by `benchmarks/planning.py`.
"""

from qortex_db.planning.choosing import (
    MAX_PLANNED_ROWS,
    Demand,
    Machine,
    Plan,
    make_plan,
)
from qortex_db.planning.sizes import SIZE_TOLERANCE, index_bytes, table_bytes

__all__ = [
    "MAX_PLANNED_ROWS",
    "SIZE_TOLERANCE",
    "Demand",
    "Machine",
    "Plan",
    "index_bytes",
    "make_plan",
    "table_bytes",
]
