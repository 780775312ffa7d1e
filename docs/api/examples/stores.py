import numpy as np

embedding = np.linspace(0.1, 1.0, 384)

# qortex_db.PgVectorIndex
from qortex_db import PgVectorIndex

index = PgVectorIndex(pool=db)  # or a DSN, whose connections are then its own

# qortex_db.PgVectorIndex.add
await index.add(["a", "b"], [embedding, embedding[::-1]])

# qortex_db.PgVectorIndex.search
(best, score), *_ = await index.search(embedding, top_k=2, threshold=0.2)
assert best == "a" and score > 0.99

# qortex_db.PgVectorIndex.size
assert await index.size() == 2

# qortex_db.PgVectorIndex.iter_all
async for ids, embeddings in index.iter_all(batch_size=500):
    assert len(ids) == len(embeddings) == 2

# qortex_db.PgVectorIndex.remove
await index.remove(["b", "unknown"])

# qortex_db.PgVectorIndex.persist
await index.persist()  # nothing is left to do: each call has committed

# qortex_db.PgVectorIndex.close
await index.close()  # a Database that was passed stays open

# qortex_db.PostgresInteroceptionStore
from qortex_db import PostgresInteroceptionStore

store = PostgresInteroceptionStore(db)

# qortex_db.PostgresInteroceptionStore.save_factor
await store.save_factor("files", 1.2)

# qortex_db.PostgresInteroceptionStore.save_factors
await store.save_factors({"mail": 0.9})

# qortex_db.PostgresInteroceptionStore.load_factors
assert await store.load_factors() == {"files": 1.2, "mail": 0.9}

# qortex_db.PostgresInteroceptionStore.save_edges
from qortex_db import EdgeStats

await store.save_edges({("files", "mail"): EdgeStats(hit_count=1, scores=[0.8])})

# qortex_db.PostgresInteroceptionStore.load_edges
assert (await store.load_edges())[("files", "mail")].hit_count == 1

# qortex_db.PostgresInteroceptionStore.remove_edges
await store.remove_edges([("files", "mail")])

# qortex_db.PostgresInteroceptionStore.close
await store.close()

# qortex_db.PostgresLearningStore
from qortex_db import PostgresLearningStore

store = PostgresLearningStore("prompts", db)

# qortex_db.PostgresLearningStore.put
from qortex_db import ArmState

await store.put("v2", ArmState(alpha=3.0, beta=1.0, pulls=2, total_reward=2.0), {"task": "sql"})

# qortex_db.PostgresLearningStore.get
assert (await store.get("v2", {"task": "sql"})).pulls == 2

# qortex_db.PostgresLearningStore.get_all
assert list(await store.get_all({"task": "sql"})) == ["v2"]

# qortex_db.PostgresLearningStore.get_all_contexts
assert len(await store.get_all_contexts()) == 1

# qortex_db.PostgresLearningStore.get_all_states
assert len(await store.get_all_states()) == 1

# qortex_db.PostgresLearningStore.save
await store.save()  # nothing is left to do

# qortex_db.PostgresLearningStore.delete
assert await store.delete(["v2"], {"task": "sql"}) == 1

# qortex_db.PostgresLearningStore.close
await store.close()

# qortex_db.LearnerConfig
from qortex_db import LearnerConfig

config = LearnerConfig(name="prompts", seed_arms=["v1", "v2"], baseline_rate=0.0)

# qortex_db.Learner
from qortex_db import Learner

learner = Learner(config, store=db)

# qortex_db.Learner.create
learner = await Learner.create(config, store=db)  # the seeds are stored at once

# qortex_db.Learner.select
# qortex_db.SelectionResult
from qortex_db import Arm

chosen = await learner.select([Arm("v1"), Arm("v2")], {"task": "sql"}, k=1)
assert len(chosen.selected) == 1

# qortex_db.ArmOutcome
from qortex_db import ArmOutcome

outcome = ArmOutcome("v1", outcome="accepted")

# qortex_db.Learner.observe
state = await learner.observe(outcome, {"task": "sql"})
assert state.pulls == 1

# qortex_db.Learner.batch_observe
outcomes = [ArmOutcome("v1", reward=1.0), ArmOutcome("v2", reward=0.0)]
states = await learner.batch_observe(outcomes, {"task": "sql"})
assert states["v1"].pulls == 2

# qortex_db.Learner.apply_credit_deltas
await learner.apply_credit_deltas({"v1": {"alpha_delta": 0.3, "beta_delta": 0.0}})

# qortex_db.Learner.decay_arm
await learner.decay_arm("v1", 0.9)

# qortex_db.Learner.posteriors
assert "mean" in (await learner.posteriors({"task": "sql"}))["v1"]

# qortex_db.Learner.top_arms
(best, state), *_ = await learner.top_arms({"task": "sql"}, k=1)
assert best == "v1"

# qortex_db.Learner.metrics
print(await learner.metrics())

# qortex_db.Learner.session_start
session = learner.session_start("evening")

# qortex_db.Learner.session_end
print(learner.session_end(session))

# qortex_db.Learner.reset
assert await learner.reset(["v1"]) == 1

# qortex_db.Learner.close
await learner.close()
