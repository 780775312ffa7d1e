from datetime import timedelta

from qortex_db.sample import load_sample

sample = load_sample()  # docstrings of Python's standard library, with their embeddings
gzip, mail = sample.question_embeddings[[3, 4]]  # of questions about them
await db.vectors.ingest(sample.records())

# qortex_db.VectorRecord
from qortex_db import VectorRecord

await db.vectors.upsert([VectorRecord("note", gzip, {"kind": "note"}, "Compress a file.")])

# qortex_db.CLEAR
# qortex_db.Clear
from qortex_db import CLEAR

await db.vectors.update("note", document=CLEAR)  # None would leave it as it is
assert (await db.vectors.get(["note"]))["note"].document is None

# qortex_db.ALL_NAMESPACES
from qortex_db import ALL_NAMESPACES, Collection, QortexVector, VectorSpec

mails = Collection(VectorSpec(384), namespace="tenant")
everyone = mails, ALL_NAMESPACES  # as in db.collection(Mail, namespace=ALL_NAMESPACES)

# qortex_db.MAX_LIMIT
from qortex_db import MAX_LIMIT

hits = await db.vectors.search(gzip, limit=MAX_LIMIT)
assert len(hits) == 801

# qortex_db.SearchHit
(hit,) = await db.vectors.search(gzip, limit=1, where={"module": "gzip"})
print(hit.id, hit.score, hit.payload, hit.document)

# qortex_db.SearchHits
hits = await db.vectors.search(gzip, limit=50, with_embedding=True)
assert len(hits) == hits.requested == 50 and hits.complete

# qortex_db.SearchHits.diverse
assert len(hits.diverse(limit=5, lambda_=0.5)) == 5

# qortex_db.SearchHits.grouped
assert len(hits.grouped("module", limit=3, group_size=2)) == 3


# qortex_db.SearchHits.rerank
def longest(query, hits):
    return [len(hit.document or "") for hit in hits]


best = await hits.rerank("compress", longest, limit=3)

# qortex_db.SearchHits.to_pandas
frame = hits.to_pandas()
assert list(frame["score"]) == sorted(frame["score"], reverse=True)

# qortex_db.SearchHits.to_arrow
assert hits.to_arrow().num_rows == 50

# qortex_db.Factor
from qortex_db import Factor

await db.factors.save({hits[3].id: 1.5})
learned = await db.vectors.search(gzip, limit=5, boost=Factor())

# qortex_db.FieldBoost
from qortex_db import FieldBoost

popular = await db.vectors.search(gzip, limit=5, boost=FieldBoost("likes", weight=0.01))

# qortex_db.ValueBoost
from qortex_db import ValueBoost

liked = await db.vectors.search(gzip, limit=5, boost=ValueBoost("kind", {"function": 0.05}))

# qortex_db.RecencyBoost
from qortex_db import QortexVector, RecencyBoost

month = RecencyBoost(QortexVector.updated_at, half_life=timedelta(days=30), weight=0.1)
recent = await db.vectors.search(gzip, limit=5, boost=month)

# qortex_db.BM25
from qortex_db import BM25

await db.vectors.count_words()
ranked = await db.vectors.hybrid_search(None, "gzip file", rank=BM25(b=0.5), limit=5)

# qortex_db.ScrollPage.to_pandas
page = await db.vectors.scroll(limit=10)
assert len(page.to_pandas()) == 10

# qortex_db.ScrollPage.to_arrow
assert page.to_arrow().num_rows == 10
