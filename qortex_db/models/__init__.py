"""The tables, as ordinary declarative models."""

from qortex_db.models.arm import LearningArmState
from qortex_db.models.base import NAMING_CONVENTION, Base
from qortex_db.models.edge import InteroceptionEdge
from qortex_db.models.factor import InteroceptionFactor
from qortex_db.models.vector import QortexVector

__all__ = [
    "NAMING_CONVENTION",
    "Base",
    "InteroceptionEdge",
    "InteroceptionFactor",
    "LearningArmState",
    "QortexVector",
]
