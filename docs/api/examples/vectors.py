from qortex_db import ConflictError, Embedder, QortexVector
from qortex_db.sample import load_sample
from sqlalchemy import select

sample = load_sample()  # docstrings of Python's standard library, with their embeddings
gzip, mail, other = sample.question_embeddings[[3, 4, 5]]  # of questions about them
await db.vectors.ingest(sample.records())

# qortex_db.repositories.VectorRepository
hits = await db.vectors.search(gzip, limit=3)
print([(hit.id, hit.score) for hit in hits])

# qortex_db.repositories.VectorRepository.search
hits = await db.vectors.search(gzip, limit=5, where={"kind": "function"}, min_score=0.1)
assert all(hit.payload["kind"] == "function" for hit in hits)

# qortex_db.repositories.VectorRepository.search_many
for hits in await db.vectors.search_many([gzip, mail], limit=3):
    assert len(hits) == 3

# qortex_db.repositories.VectorRepository.multi_search
agreed = await db.vectors.multi_search([gzip, mail, other], limit=5, rank="count")
assert agreed[0].score >= agreed[-1].score

# qortex_db.repositories.VectorRepository.hybrid_search
# qortex_db.BranchHit
hits = await db.vectors.hybrid_search(gzip, "gzip bz2", limit=5)
assert {name for hit in hits for name in hit.branches} == {"dense", "text"}
assert all(branch.rank >= 1 for branch in hits[0].branches.values())

# qortex_db.repositories.VectorRepository.mmr_search
varied = await db.vectors.mmr_search(gzip, limit=5, fetch_limit=20, lambda_=0.3)
assert len(varied) == 5

# qortex_db.repositories.VectorRepository.range_search
similar = await db.vectors.range_search(gzip, min_score=0.4)
assert all(hit.score >= 0.4 for hit in similar)

# qortex_db.repositories.VectorRepository.search_groups
groups = await db.vectors.search_groups(gzip, "module", limit=3, group_size=2)

# qortex_db.SearchGroups
assert len(groups) == groups.requested == 3 and groups.complete

# qortex_db.SearchGroup
for group in groups:
    print(group.value, [hit.id for hit in group.hits])

# qortex_db.repositories.VectorRepository.recommend
first, *_, last = await db.vectors.search(gzip, limit=5)
more = await db.vectors.recommend([first.id], [last.id], limit=5)
assert first.id not in {hit.id for hit in more}

# qortex_db.repositories.VectorRepository.stream_search
async for hit in db.vectors.stream_search(gzip, min_score=0.5):
    print(hit.id, hit.score)

# qortex_db.repositories.VectorRepository.get
found = await db.vectors.get([first.id, "missing"])
assert list(found) == [first.id]

# qortex_db.repositories.VectorRepository.count
assert await db.vectors.count(where={"kind": "function"}) < await db.vectors.count()

# qortex_db.repositories.VectorRepository.facet
# qortex_db.FacetCount
for kind in await db.vectors.facet("kind", limit=3):
    print(kind.value, kind.count)

# qortex_db.repositories.VectorRepository.aggregate
# qortex_db.Aggregate
for group in await db.vectors.aggregate({"module": ["distinct"]}, group_by="kind"):
    print(group.value, group.count, group.of["module"]["distinct"])

# qortex_db.repositories.VectorRepository.scroll
# qortex_db.ScrollPage
page = await db.vectors.scroll(limit=100, order_by="module")
rest = await db.vectors.scroll(limit=100, order_by="module", after=page.next)
assert not {one.id for one in page.records} & {one.id for one in rest.records}

# qortex_db.repositories.VectorRepository.stream
count = 0
async for record in db.vectors.stream(where={"kind": "class"}, with_embedding=False):
    count += 1
assert count == await db.vectors.count(where={"kind": "class"})

# qortex_db.repositories.VectorRepository.stream_batches
# qortex_db.EmbeddingBatch
async for batch in db.vectors.stream_batches(batch_size=500):
    assert batch.embeddings.shape == (len(batch.ids), 384)

# qortex_db.repositories.VectorRepository.dimensions
assert await db.vectors.dimensions() == 384

# qortex_db.repositories.VectorRepository.recall_probe
# qortex_db.repositories.RecallProbe
probe = await db.vectors.recall_probe(sample=10)
assert probe.recall > 0.9

# qortex_db.repositories.VectorRepository.tune
# qortex_db.repositories.Tuning
tuning = await db.vectors.tune(target_recall=0.95, sample=10)
assert tuning.tried[tuning.ef_search] >= 0.95

# qortex_db.repositories.VectorRepository.upsert
record = {"id": "note", "embedding": gzip, "payload": {"kind": "note", "year": 2024}}
assert await db.vectors.upsert([record]) == 1
assert await db.vectors.upsert([record]) == 0  # it is there, and the same

# qortex_db.repositories.VectorRepository.upsert_with_zeros
await db.vectors.upsert_with_zeros([{"id": "blank", "embedding": [0.0] * 384}])
assert "blank" not in {hit.id for hit in await db.vectors.search(gzip, limit=1000)}

# qortex_db.repositories.VectorRepository.insert
# qortex_db.Inserted
inserted = await db.vectors.insert([record, {"id": "new", "embedding": mail}])
assert (inserted.new, inserted.existing) == (["new"], ["note"])

# qortex_db.repositories.VectorRepository.update
assert await db.vectors.update("new", document="A letter.", payload={"kind": "note"})
assert not await db.vectors.update("missing", document="Nobody has it.")

# qortex_db.repositories.VectorRepository.update_many
changed = await db.vectors.update_many([{"id": "new", "document": "A letter, answered."}])
assert changed == 1

# qortex_db.repositories.VectorRepository.ingest
rows = ({"id": f"row{n}", "embedding": gzip * n + mail if n else [1.0]} for n in range(1000))
bad = []
read = await db.vectors.ingest(rows, batch_size=250, on_error="skip", rejects=bad.append)
assert read == 999

# qortex_db.RejectedRecord
assert (bad[0].row, bad[0].id) == (0, "row0")
print(bad[0].reason)

# qortex_db.IngestProgress
rows = ({"id": f"row{n}", "embedding": gzip * n + mail} for n in range(1, 1000))
told = []
await db.vectors.ingest(rows, batch_size=500, on_progress=told.append)
assert told == [500, 999] and told[-1].rejected == 0 and told[-1].rows_per_second > 0

# qortex_db.repositories.VectorRepository.delete
assert await db.vectors.delete(["row1", "row2", "missing"]) == 2

# qortex_db.repositories.VectorRepository.merge_payload
changed = await db.vectors.merge_payload({"seen": True}, remove=["year"], where={"kind": "note"})
assert changed == 2

# qortex_db.repositories.VectorRepository.delete_where
assert await db.vectors.delete_where({"seen": True}) == 2

# qortex_db.repositories.VectorRepository.rotate_keys
assert await db.vectors.rotate_keys() == 0  # this table has nothing that is encrypted

# qortex_db.repositories.VectorRepository.count_words
statistics = await db.vectors.count_words()
assert statistics.documents > 0

# qortex_db.repositories.VectorRepository.word_statistics
# qortex_db.WordStatistics
counted = await db.vectors.word_statistics()
print(counted.documents, counted.mean_length, counted.counted_at)

# qortex_db.repositories.VectorRepository.fill_words
assert await db.vectors.fill_words() == 0  # this table's words are in an index alone

# qortex_db.repositories.VectorRepository.explain
# qortex_db.repositories.SearchPlan
plan = await db.vectors.explain(gzip, where={"kind": "function"})
print(plan.indexes, plan.text)

# qortex_db.repositories.VectorRepository.recommend_index
# qortex_db.repositories.IndexAdvice
advice = await db.vectors.recommend_index(rows=2_000_000, memory_bytes=8 * 2**30)
print(advice.method, advice.storage, advice.reasons)

# qortex_db.repositories.VectorRepository.clause
kinds = select(QortexVector.id).where(db.vectors.clause({"kind": "class"}))
async with db.unit_of_work() as uow:
    assert (await uow.session.scalars(kinds.limit(3))).all()

# qortex_db.repositories.VectorRepository.distance
near = select(QortexVector.id).order_by(db.vectors.distance(gzip)).limit(3)
async with db.unit_of_work() as uow:
    ids = (await uow.session.scalars(near)).all()

# qortex_db.repositories.VectorRepository.score
scored = select(QortexVector.id, db.vectors.score(gzip)).limit(3)
async with db.unit_of_work() as uow:
    scores = (await uow.session.execute(scored)).all()

# qortex_db.repositories.VectorRepository.reembed
from qortex_db import migrations


def large(texts):  # a model of 4 dimensions
    return [[len(text), 1.0, 2.0, 3.0] for text in texts]


await db.vectors.delete_where({"kind": {"$exists": False}})  # what has no text
await migrations.add_embedding_column("v2", 4)
both = db.collection(QortexVector, embedder={"v2": Embedder(large, name="large")})
assert await both.reembed(into="v2") == await both.count()

# qortex_db.repositories.VectorRepository.changeover
# qortex_db.ModelChange
change = await both.changeover()
assert (change.current, change.other, change.missing) == ("old", "v2", 0)

# qortex_db.repositories.VectorRepository.switch_to
import asyncio

while True:
    try:
        await both.switch_to("v2")
        break
    except ConflictError:  # a process may not have seen the column yet
        await asyncio.sleep(0.2)
assert (await both.changeover()).current == "v2"

# qortex_db.repositories.VectorRepository.delete_all
assert await db.vectors.delete_all() > 0
