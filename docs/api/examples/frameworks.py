east, north = [1.0, *[0.0] * 383], [0.0, 1.0, *[0.0] * 382]  # of any embedder

# qortex_db.integrations.langchain.QortexVectorStore
from langchain_core.embeddings import DeterministicFakeEmbedding
from qortex_db.integrations.langchain import QortexVectorStore

store = QortexVectorStore(DeterministicFakeEmbedding(size=384), database=db)

# qortex_db.integrations.langchain.QortexVectorStore.aadd_texts
await store.aadd_texts(["gzip compresses", "smtplib sends"], [{"year": 1997}, {}], ids=["a", "b"])

# qortex_db.integrations.langchain.QortexVectorStore.aget_by_ids
assert [one.id for one in await store.aget_by_ids(["a", "missing"])] == ["a"]

# qortex_db.integrations.langchain.QortexVectorStore.asimilarity_search_with_score
((document, score),) = await store.asimilarity_search_with_score("gzip compresses", k=1)
assert document.id == "a" and score > 0.99

# qortex_db.integrations.langchain.QortexVectorStore.ahybrid_search_with_score
found = await store.ahybrid_search_with_score("smtplib", k=1)
assert found[0][0].id == "b"

# qortex_db.integrations.langchain.QortexVectorStore.as_hybrid_retriever
# qortex_db.integrations.langchain.QortexHybridRetriever
retriever = store.as_hybrid_retriever(k=1)
assert (await retriever.ainvoke("smtplib"))[0].id == "b"

# qortex_db.integrations.langchain.QortexVectorStore.adelete
await store.adelete(["a", "b"])

# qortex_db.integrations.langchain.QortexVectorStore.aclose
await store.aclose()  # a Database that was passed stays open

# qortex_db.integrations.langchain.QortexRecordManager
from qortex_db.integrations.langchain import QortexRecordManager

records = QortexRecordManager("library", database=db)  # for `aindex`, a name for each index

# qortex_db.integrations.langchain.QortexRecordManager.acreate_schema
await records.acreate_schema()  # a migration has made it: nothing is left to do

# qortex_db.integrations.langchain.QortexRecordManager.aget_time
now = await records.aget_time()

# qortex_db.integrations.langchain.QortexRecordManager.aupdate
await records.aupdate(["key"], group_ids=["a.txt"])

# qortex_db.integrations.langchain.QortexRecordManager.aexists
assert await records.aexists(["key", "other"]) == [True, False]

# qortex_db.integrations.langchain.QortexRecordManager.alist_keys
assert await records.alist_keys(group_ids=["a.txt"]) == ["key"]

# qortex_db.integrations.langchain.QortexRecordManager.adelete_keys
await records.adelete_keys(["key"])

# qortex_db.integrations.langchain.QortexRecordManager.aclose
await records.aclose()

# qortex_db.integrations.llama_index.QortexVectorStore
from qortex_db.integrations.llama_index import QortexVectorStore

store = QortexVectorStore(database=db)

# qortex_db.integrations.llama_index.QortexVectorStore.async_add
from llama_index.core.schema import TextNode

await store.async_add([TextNode(id_="n1", text="gzip compresses", embedding=east)])

# qortex_db.integrations.llama_index.QortexVectorStore.aquery
from llama_index.core.vector_stores import VectorStoreQuery

found = await store.aquery(VectorStoreQuery(query_embedding=east, similarity_top_k=1))
assert found.ids == ["n1"]

# qortex_db.integrations.llama_index.QortexVectorStore.aget_nodes
assert [node.node_id for node in await store.aget_nodes(["n1"])] == ["n1"]

# qortex_db.integrations.llama_index.QortexVectorStore.adelete_nodes
await store.adelete_nodes(["n1"])

# qortex_db.integrations.llama_index.QortexVectorStore.adelete
await store.adelete("a document's id")  # and its nodes

# qortex_db.integrations.llama_index.QortexVectorStore.aclear
await store.aclear()

# qortex_db.integrations.llama_index.QortexVectorStore.aclose
await store.aclose()

# qortex_db.integrations.haystack.QortexDocumentStore
from haystack import Document
from qortex_db.integrations.haystack import QortexDocumentStore

store = QortexDocumentStore(database=db)

# qortex_db.integrations.haystack.QortexDocumentStore.write_documents_async
document = Document(id="gzip", content="gzip compresses", meta={"year": 1997}, embedding=east)
assert await store.write_documents_async([document]) == 1

# qortex_db.integrations.haystack.QortexDocumentStore.filter_documents_async
late = {"field": "meta.year", "operator": ">", "value": 1990}
assert [one.id for one in await store.filter_documents_async(late)] == ["gzip"]

# qortex_db.integrations.haystack.QortexDocumentStore.retrieve_async
assert [one.id for one in await store.retrieve_async(query_embedding=east, top_k=1)] == ["gzip"]

# qortex_db.integrations.haystack.QortexDocumentStore.update_by_filter_async
assert await store.update_by_filter_async(late, {"seen": True}) == 1

# qortex_db.integrations.haystack.QortexEmbeddingRetriever
from qortex_db.integrations.haystack import QortexEmbeddingRetriever

retriever = QortexEmbeddingRetriever(store, top_k=1)
found = await retriever.run_async(query_embedding=east)

# qortex_db.integrations.haystack.QortexKeywordRetriever
from qortex_db.integrations.haystack import QortexKeywordRetriever

found = await QortexKeywordRetriever(store, top_k=1).run_async(query="compresses")
assert found["documents"][0].id == "gzip"

# qortex_db.integrations.haystack.QortexHybridRetriever
from qortex_db.integrations.haystack import QortexHybridRetriever

both = QortexHybridRetriever(store, top_k=1)
found = await both.run_async(query="compresses", query_embedding=north)

# qortex_db.integrations.haystack.QortexDocumentStore.delete_by_filter_async
assert await store.delete_by_filter_async(late) == 1

# qortex_db.integrations.haystack.QortexDocumentStore.delete_documents_async
await store.delete_documents_async(["gzip"])

# qortex_db.integrations.haystack.QortexDocumentStore.to_dict
kept = QortexDocumentStore().to_dict()  # of a pipeline that is saved

# qortex_db.integrations.haystack.QortexDocumentStore.close_async
await store.close_async()
