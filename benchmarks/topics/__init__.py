"""The topics: which works are timed, on what, and what is counted beside the times."""

from __future__ import annotations

from topics.choosing import choosing
from topics.curve import curve
from topics.databases import databases
from topics.fairness import fairness
from topics.filters import filters
from topics.growth import growth
from topics.hosts import hosts
from topics.learning import interoception, learning
from topics.many import many
from topics.partitions import partitions
from topics.reading import get, stream
from topics.searching import search
from topics.start import start
from topics.units import units
from topics.writing import bulk, hnsw, memory

TOPICS = {
    "search": ("Search", search),
    "curve": ("Recall and throughput", curve),
    "filters": ("Filters", filters),
    "many": ("Many queries", many),
    "get": ("Reading by key", get),
    "units": ("Units of work", units),
    "hosts": ("Engines", hosts),
    "fairness": ("Many at once", fairness),
    "bulk": ("Writing in bulk", bulk),
    "hnsw": ("Writing with an index", hnsw),
    "learning": ("Bandits", learning),
    "interoception": ("Factors and edges", interoception),
    "stream": ("Reading everything", stream),
    "memory": ("Memory", memory),
    "start": ("Starting", start),
    "growth": ("Growth", growth),
    "partitions": ("Partitions", partitions),
    "databases": ("Other databases", databases),
    "choosing": ("Choosing an index", choosing),
}
