"""Bandits as pure functions: states, contexts and Thompson sampling. No I/O."""

from qortex_db.learning.state import Arm, ArmState, context_hash
from qortex_db.learning.thompson import Selection, select

__all__ = ["Arm", "ArmState", "Selection", "context_hash", "select"]
