from datetime import timedelta

import numpy as np
from qortex_db import Arm

rng = np.random.default_rng(7)

# qortex_db.repositories.ArmRepository
chosen = await db.arms.select("prompts", ["v1", "v2"], context={"task": "sql"})
await db.arms.observe("prompts", chosen.selected[0], reward=1.0, context={"task": "sql"})

# qortex_db.Arm
arms = [Arm("short", token_cost=200), Arm("long", token_cost=900, metadata={"style": "full"})]

# qortex_db.repositories.ArmRepository.select
chosen = await db.arms.select("prompts", arms, k=2, token_budget=1000, rng=rng)
assert len(chosen.selected) == 1  # both would be too dear

# qortex_db.Selection
assert len(chosen.excluded) == 1 and chosen.used_tokens <= 1000
print(chosen.scores, chosen.is_baseline)

# qortex_db.repositories.ArmRepository.observe
state = await db.arms.observe("prompts", "short", reward=1.0, idempotency_key="answer:1")
assert (state.alpha, state.beta, state.pulls) == (2.0, 1.0, 1)

# qortex_db.repositories.ArmRepository.observe_many
states = await db.arms.observe_many("prompts", [("short", 0.5), ("long", 0.0), ("long", 1.0)])
assert states["long"].pulls == 2

# qortex_db.repositories.ArmRepository.apply_deltas
states = await db.arms.apply_deltas("prompts", {"short": (0.3, 0.0)})
assert states["short"].alpha == 2.8

# qortex_db.repositories.ArmRepository.decay
from qortex_db import ALL_CONTEXTS

await db.arms.decay("prompts", "long", factor=0.9)
await db.arms.decay("prompts", half_life=timedelta(days=30), context=ALL_CONTEXTS)

# qortex_db.repositories.ArmRepository.seed
seeded = await db.arms.seed("prompts", ["new"], boost=3.0)
assert seeded["new"].alpha == 3.0

# qortex_db.repositories.ArmRepository.put
from qortex_db import ArmState

await db.arms.put("prompts", "old", ArmState(alpha=5.0, beta=2.0, pulls=5, total_reward=4.0))

# qortex_db.repositories.ArmRepository.top
(best, state), *others = await db.arms.top("prompts", k=3)
assert all(state.mean >= other.mean for _, other in others)

# qortex_db.repositories.ArmRepository.posteriors
# qortex_db.Posterior
posterior = (await db.arms.posteriors("prompts", level=0.9))["old"]
assert posterior.low < posterior.mean < posterior.high

# qortex_db.repositories.ArmRepository.get
assert (await db.arms.get("prompts", "unknown")).pulls == 0  # the prior, stored nowhere

# qortex_db.repositories.ArmRepository.get_all
assert "old" in await db.arms.get_all("prompts")

# qortex_db.repositories.ArmRepository.get_all_states
by_context = await db.arms.get_all_states("prompts")
assert "old" in by_context["default"]

# qortex_db.repositories.ArmRepository.contexts
from qortex_db import context_hash

assert context_hash({"task": "sql"}) in await db.arms.contexts("prompts")

# qortex_db.repositories.ArmRepository.read_contexts
contexts = await db.arms.read_contexts("prompts")  # what they stand for: None without the history

# qortex_db.repositories.ArmRepository.metrics
# qortex_db.LearnerMetrics
metrics = await db.arms.metrics("prompts")
assert metrics.total_pulls > 0 and 0 <= metrics.accuracy <= 1

# qortex_db.repositories.ArmRepository.rebuild
from qortex_db import Database, Settings

async with Database.connect(Settings(learning_history=True)) as keeping:
    await keeping.arms.observe("ranks", "bm25", reward=1.0)
    rebuilt = await keeping.arms.rebuild("ranks")  # by its history
    assert rebuilt["default"]["bm25"].pulls == 1

# qortex_db.repositories.ArmRepository.reset
assert await db.arms.reset("prompts", ["old"]) == 1

# qortex_db.repositories.ArmRepository.delete
assert await db.arms.delete("prompts", context=ALL_CONTEXTS) > 0

# qortex_db.ArmState
from qortex_db import ArmState

state = ArmState(alpha=3.0, beta=1.0, pulls=2, total_reward=2.0)
assert state.mean == 0.75

# qortex_db.ArmState.to_dict
kept = state.to_dict()

# qortex_db.ArmState.from_dict
assert ArmState.from_dict(kept) == state

# qortex_db.ALL_CONTEXTS
from qortex_db import ALL_CONTEXTS

assert await db.arms.reset("prompts", context=ALL_CONTEXTS) == 0

# qortex_db.context_hash
from qortex_db import context_hash

assert context_hash({}) == context_hash(None) == "default"
assert context_hash({"a": 1, "b": 2}) == context_hash({"b": 2, "a": 1})


# qortex_db.Policy
class Greedy:  # any object with this method is one
    def scores(self, states, rng, rounds):
        return np.tile([state.mean for state in states], (rounds, 1))


# qortex_db.Policy.scores
assert Greedy().scores([ArmState(), ArmState(alpha=3.0)], rng, 2).shape == (2, 2)
await db.arms.observe("prompts", "v2", reward=1.0)
chosen = await db.arms.select("prompts", ["v1", "v2"], policy=Greedy(), baseline_rate=0)
assert list(chosen.selected) == ["v2"]

# qortex_db.ThompsonSampling
from qortex_db import ThompsonSampling

await db.arms.select("prompts", ["v1", "v2"], policy=ThompsonSampling())  # the default

# qortex_db.UCB1
from qortex_db import UCB1

await db.arms.select("prompts", ["v1", "v2"], policy=UCB1(exploration=1.0))

# qortex_db.EpsilonGreedy
from qortex_db import EpsilonGreedy

await db.arms.select("prompts", ["v1", "v2"], policy=EpsilonGreedy(epsilon=0.05))


# qortex_db.RewardModel
class Seconds:  # any object with this method is one
    def compute(self, outcome):
        return 1.0 if float(outcome) < 2 else 0.0


# qortex_db.RewardModel.compute
assert Seconds().compute("1.2") == 1.0

# qortex_db.TernaryReward
from qortex_db import TernaryReward

rewards = TernaryReward()
assert [rewards.compute(said) for said in ("accepted", "partial", "rejected")] == [1.0, 0.5, 0.0]

# qortex_db.BinaryReward
from qortex_db import BinaryReward

assert BinaryReward().compute("partial") == 0.0

# qortex_db.CustomReward
from qortex_db import CustomReward

stars = CustomReward(lambda outcome: int(outcome) / 5)
assert stars.compute("4") == 0.8
