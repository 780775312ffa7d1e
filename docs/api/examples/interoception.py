from datetime import timedelta

# qortex_db.repositories.FactorRepository
weights = await db.factors.adjust({"files": "accepted", "mail": "rejected"})

# qortex_db.repositories.FactorRepository.adjust
weights = await db.factors.adjust({"files": "accepted"}, idempotency_key="answer:1")
again = await db.factors.adjust({"files": "accepted"}, idempotency_key="answer:1")
assert again["files"] == weights["files"]  # counted once

# qortex_db.repositories.FactorRepository.save
await db.factors.save({"files": 1.5, "time": 0.5})

# qortex_db.repositories.FactorRepository.get
assert await db.factors.get(["files", "unknown"]) == {"files": 1.5, "unknown": 1.0}

# qortex_db.repositories.FactorRepository.load
assert (await db.factors.load())["time"] == 0.5

# qortex_db.repositories.FactorRepository.weight_seeds
shares = await db.factors.weight_seeds(["files", "time"])
assert shares == {"files": 0.75, "time": 0.25}

# qortex_db.repositories.FactorRepository.summary
# qortex_db.FactorSummary
summary = await db.factors.summary()
assert summary.count == 3 and summary.max == 1.5

# qortex_db.repositories.FactorRepository.changes
# qortex_db.FactorChanges
first = await db.factors.changes()  # all of them
later = await db.factors.changes(first.cursor)
copy = {**first.weights, **later.weights}
assert copy == await db.factors.load()

# qortex_db.repositories.FactorRepository.decay
await db.factors.decay(half_life=timedelta(days=30))  # towards 1, by the time since they changed

# qortex_db.repositories.FactorRepository.delete
assert await db.factors.delete(["time", "unknown"]) == 1

# qortex_db.repositories.EdgeRepository
edge = await db.edges.record("mail", "files", score=0.8)

# qortex_db.repositories.EdgeRepository.record
edge = await db.edges.record("files", "mail", score=0.9)  # a pair has no direction
assert edge.hit_count == 2

# qortex_db.EdgeStats
from qortex_db import EdgeStats

assert edge.scores == [0.8, 0.9] and edge.last_seen  # ISO 8601
made = EdgeStats(hit_count=1, scores=[0.5])

# qortex_db.EdgeStats.avg_score
assert abs(edge.avg_score - 0.85) < 1e-9

# qortex_db.repositories.EdgeRepository.record_many
assert await db.edges.record_many([("mail", "files", 0.9), ("time", "files", 0.4)]) == 2

# qortex_db.repositories.EdgeRepository.get
assert (await db.edges.get("mail", "unknown")).hit_count == 0

# qortex_db.repositories.EdgeRepository.load
assert ("files", "mail") in await db.edges.load()

# qortex_db.repositories.EdgeRepository.save
await db.edges.save({("files", "zip"): EdgeStats(hit_count=4, scores=[0.9, 0.8, 0.9, 1.0])})

# qortex_db.repositories.EdgeRepository.summary
# qortex_db.EdgeSummary
summary = await db.edges.summary()
assert summary.ready_to_promote == 2

# qortex_db.repositories.EdgeRepository.promote
# qortex_db.Promotion
async with db.unit_of_work() as uow:  # they are gone once it commits
    for edge in await uow.edges.promote(min_hits=3, min_avg_score=0.75):
        print(edge)

# qortex_db.repositories.EdgeRepository.remove
assert await db.edges.remove([("files", "time")]) == 1
