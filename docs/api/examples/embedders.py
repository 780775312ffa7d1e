import numpy as np


def model(texts):  # any function of a list of texts, `async` or not
    return np.stack([np.bincount(bytearray(text.encode()), minlength=384) for text in texts])


# qortex_db.Embedder
from qortex_db import Embedder, QortexVector

notes = db.collection(QortexVector, embedder=Embedder(model, name="bytes", revision="1"))
await notes.upsert([{"id": "gzip", "document": "Compress a file with gzip."}])
assert (await notes.search("compress a file"))[0].id == "gzip"

# qortex_db.Embedder.of
embedder = Embedder.of(model, name="bytes")  # one of whatever has `embed_documents`, `encode` …

# qortex_db.ExampleText
from qortex_db import ExampleText

hits = await notes.recommend([ExampleText("compress a file")], limit=1)
assert hits[0].id == "gzip"

# qortex_db.repositories.EmbeddingRepository
embeddings = await db.embeddings.embed(["one", "two", "one"], model=model, name="bytes")
assert embeddings.shape == (3, 384)

# qortex_db.repositories.EmbeddingRepository.embed
again = await db.embeddings.embed(["two"], model=model, name="bytes")  # the model isn't called
assert (again[0] == embeddings[1]).all()

# qortex_db.repositories.EmbeddingRepository.stats
# qortex_db.CacheStats
stats = await db.embeddings.stats()
assert stats.rows >= 2 and "bytes" in " ".join(stats.models)

# qortex_db.MAX_CACHED
from qortex_db import MAX_CACHED

await db.embeddings.embed(["three"], model=model, name="bytes", max_rows=MAX_CACHED)

# qortex_db.repositories.EmbeddingRepository.clear
assert await db.embeddings.clear() > 0
