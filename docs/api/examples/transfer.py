import json
from pathlib import Path

row = {"id": 7, "embedding": [0.5] * 384, "text": "gzip compresses files", "year": 1997}
Path("notes.jsonl").write_text(json.dumps(row) + "\n")

# qortex_db.transfer.open_source
from qortex_db.transfer import open_source

source = await open_source("jsonl", "notes.jsonl")

# qortex_db.transfer.SOURCES
from qortex_db.transfer import SOURCES

assert {"jsonl", "qdrant", "chroma"} <= SOURCES.keys()

# qortex_db.transfer.plan_import
# qortex_db.transfer.ImportPlan
from qortex_db.transfer import plan_import

plan = await plan_import(source)
assert (plan.document, plan.source.rows) == ("text", 1)

# qortex_db.transfer.Choices
from qortex_db.transfer import Choices

chosen = await plan_import(source, Choices(document="text", payload="year"))

# qortex_db.transfer.import_collection
# qortex_db.transfer.ImportReport
from qortex_db.transfer import import_collection

report = await import_collection(db, source)
assert report.is_good, report.faults

# qortex_db.transfer.ImportReport.faults
assert not report.faults

# qortex_db.transfer.ImportReport.is_good
assert report.is_good and (report.read, report.written) == (1, 1)

# qortex_db.transfer.Difference
for difference in report.differences:  # among the rows that were compared
    print(difference.id, difference.fields)

# qortex_db.transfer.Overlap
for overlap in report.overlaps:  # of searches there and here
    print(overlap.vector, overlap.share)

# qortex_db.transfer.Source
from qortex_db.transfer import Page, SourceDescription, SourceRow, SourceVector


class Numbers:  # any object with these methods is one
    label = "numbers, of this program"

    async def describe(self):
        return SourceDescription(9, [SourceVector("vec", 384, "cosine")])

    async def pages(self, after, size):
        for first in range((after or 0) + 1, 10, size):
            last = min(first + size, 10)
            rows = [SourceRow(n, {"vec": [float(n)] * 384}) for n in range(first, last)]
            yield Page(rows, last - 1 if last < 10 else None)

    async def get(self, ids):
        return [SourceRow(n, {"vec": [float(n)] * 384}) for n in ids if n in range(1, 10)]

    async def nearest(self, vector, query, limit):
        return None  # it searches nothing

    async def close(self):
        pass


assert (await plan_import(Numbers())).source.rows == 9

# qortex_db.transfer.Source.describe
described = await source.describe()
assert described.rows == 1

# qortex_db.transfer.SourceDescription
from qortex_db.transfer import SourceDescription

print(described.ids, *described.left_out, *described.notes)

# qortex_db.transfer.SourceVector
assert [one.dimensions for one in described.vectors] == [384]

# qortex_db.transfer.SourceIndex
for index in described.indexes:
    print(index.path, index.kind)

# qortex_db.transfer.Source.pages
async for page in source.pages(None, 100):
    print(len(page.rows))

# qortex_db.transfer.Page
from qortex_db.transfer import Page

empty = Page(rows=[], position=None)  # the last one

# qortex_db.transfer.SourceRow
from qortex_db.transfer import SourceRow

for found in page.rows:
    print(found.id, found.payload, found.document)
made = SourceRow("a", {"vec": [0.5] * 384}, {"year": 1997}, "a text")

# qortex_db.transfer.SourceReject
async for page in source.pages(None, 100):
    for reject in page.rejects:
        print(reject.where, reject.reason)

# qortex_db.transfer.Source.get
assert [found.id for found in await source.get([7])] == [7]

# qortex_db.transfer.Source.nearest
assert await source.nearest("", row["embedding"], 5) is None  # a file searches nothing

# qortex_db.transfer.SparseComponents
from qortex_db.transfer import SparseComponents, SourceRow

words = SparseComponents(indices=[3, 17], values=[0.5, 1.0])
made = SourceRow(id="a", vectors={"words": words})  # as a source of yours gives it

# qortex_db.transfer.Source.close
await source.close()

# qortex_db.transfer.import_qortex_memory
# qortex_db.transfer.MemoryPart
from qortex_db import NotFoundError
from qortex_db.transfer import import_qortex_memory

try:
    for part in await import_qortex_memory(db, "qortex"):  # as ~/.qortex
        print(part.into, part.rows, part.is_good)
except NotFoundError as error:  # it has neither interoception.db nor learning/*.db
    print(error)

# qortex_db.transfer.export
# qortex_db.transfer.Manifest
from qortex_db.transfer import export

await db.factors.save({"node": 1.5})
manifest = await export(db, "kept", format="jsonl")
assert "interoception_factors" in {table.name for table in manifest.tables}

# qortex_db.transfer.restore
from qortex_db.transfer import restore

assert await restore(db, "kept") == manifest  # all is there: nothing is loaded twice

# qortex_db.transfer.ArchiveProgress
await export(db, "again", format="jsonl", on_progress=lambda done: print(done.table, done.rows))

# qortex_db.report.read
# qortex_db.report.Report
from qortex_db import report

told = await report.read(db)
assert told.factors.count == 1

# qortex_db.report.page
Path("report.html").write_text(report.page(told, facts={"service": "notes"}))

# qortex_db.doctor.examine
# qortex_db.doctor.Finding
from qortex_db.doctor import examine

assert db.settings is not None  # of a Database over an engine of yours: Settings(dsn=…)
for finding in await examine(db.settings):
    if finding.level != "good":
        print(finding.check, finding.said, finding.do)
