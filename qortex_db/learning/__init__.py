"""Bandits as pure functions: states, contexts, policies, rewards and selections. No I/O."""

from qortex_db.learning.policies import UCB1, EpsilonGreedy, Policy, ThompsonSampling
from qortex_db.learning.posterior import Posterior, posteriors
from qortex_db.learning.rewards import BinaryReward, CustomReward, RewardModel, TernaryReward
from qortex_db.learning.selection import Selection, probabilities, select
from qortex_db.learning.state import Arm, ArmState, canonical_json, context_hash, hash_of_json

__all__ = [
    "UCB1",
    "Arm",
    "ArmState",
    "BinaryReward",
    "CustomReward",
    "EpsilonGreedy",
    "Policy",
    "Posterior",
    "RewardModel",
    "Selection",
    "TernaryReward",
    "ThompsonSampling",
    "canonical_json",
    "context_hash",
    "hash_of_json",
    "posteriors",
    "probabilities",
    "select",
]
