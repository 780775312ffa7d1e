"""`qortex-db vectors ingest` and `export`: rows as lines of JSON, in bounded memory."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qortex_db.cli.shell import Embedded, Models, err, fail, note, run
from qortex_db.cli.vectors.chosen import (
    Embedder,
    Model,
    Name,
    Namespace,
    choose,
    vectors_of,
)
from qortex_db.cli.vectors.where import Where, read_where

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from qortex_db import RejectedRecord
    from qortex_db.cli.vectors.chosen import Chosen
    from qortex_db.repositories.progress import IngestProgress

_TOLD: Final = 20


def _refuse_parquet(file: Path, instead: str) -> None:
    if file.suffix == ".parquet":
        fail(f"{file} is called as Parquet is, and these are lines of JSON: {instead}.", status=2)


def ingest(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON lines, .gz too; - is the standard input.")
    ] = Path("-"),
    *,
    batch_size: Annotated[int, typer.Option(min=1, max=100_000, help="Rows at a time.")] = 1_000,
    rejects: Annotated[
        Path | None, typer.Option(help="A file for all lines that are no good, as JSON lines.")
    ] = None,
    embedder: Embedder = None,
    model: Model = None,
    collection: Name = None,
    namespace: Namespace = None,
    metadata: Models = None,
    embedded: Embedded = False,
) -> None:
    """Store rows: each line has id, embedding, payload, document, vectors and attributes.

    Rows of the same id are replaced. Lines that are no good are told of with their numbers and
    left out, and the exit status is 1 then; each batch stays once it is written.
    """
    _refuse_parquet(file, "`qortex-db import parquet` reads it")
    chosen = choose(model, collection, metadata, namespace, embedder)
    aside = _Aside(rejects, batch_size)
    stored = run(_ingest(file, chosen, aside, batch_size, embedded=embedded))
    note(f"{aside.line:,} lines were read, {stored:,} rows stored, {aside.count:,} were no good.")
    if aside.count:
        raise typer.Exit(1)


async def _ingest(
    file: Path, chosen: Chosen, aside: _Aside, batch_size: int, *, embedded: bool
) -> int:
    from qortex_db import InvalidInputError, QortexDbError
    from qortex_db.cli.vectors.json_rows import RowReader
    from qortex_db.cli.vectors.lines import lines_of

    reader = RowReader(chosen.table)

    async def records() -> AsyncIterator[dict[str, Any]]:
        async for number, line in lines_of(file):
            aside.line = number
            try:
                row = reader.read(line)
            except InvalidInputError as error:
                aside.put(number, None, str(error))
            else:
                aside.take(number)
                yield row

    try:
        async with vectors_of(chosen, embedded=embedded) as vectors:
            return await vectors.ingest(
                records(),
                batch_size=batch_size,
                on_error="skip",
                rejects=aside.reject,
                on_progress=aside.show,
            )
    except QortexDbError as error:
        raise error.retold(aside.by_lines(str(error))) from None
    except Exception as error:  # an embedder's own, with a note on whose documents
        notes = getattr(error, "__notes__", [])
        notes[:] = map(aside.by_lines, notes)
        raise
    finally:
        aside.close()


class _Aside:
    """The lines that are no good: told of with their numbers, the first of them on the terminal.

    Attributes:
        line: The number of the last one that was read; blank lines count, as in an editor.
        count: How many were no good.
    """

    def __init__(self, path: Path | None, batch_size: int) -> None:
        self.line = self.count = 0
        self._rows = 0
        # Of one batch: its rejects are told of before the next is read.
        self._numbers: deque[int] = deque(maxlen=batch_size)
        try:
            self._file = None if path is None else path.open("w", encoding="utf-8")
        except OSError as error:
            fail(f"{path} can't be written: {error.strerror}.", status=2)

    def take(self, number: int) -> None:
        """A line is the next row."""
        self._numbers.append(number)
        self._rows += 1

    def reject(self, rejected: RejectedRecord) -> None:
        """A row is none after all."""
        number = self._line_of(rejected.row)
        self.put(number or self.line, rejected.id, self.by_lines(rejected.reason))

    def by_lines(self, message: str) -> str:
        """What is told of rows, told of the lines that they are."""
        from qortex_db.messages import with_rows_called

        def called(row: int) -> str:
            number = self._line_of(row)
            return f"row {row}" if number is None else f"line {number}"

        return with_rows_called(message, called)

    def _line_of(self, row: int) -> int | None:
        place = row - (self._rows - len(self._numbers))
        return self._numbers[place] if 0 <= place < len(self._numbers) else None

    def show(self, progress: IngestProgress) -> None:
        """A batch is written."""
        if err().is_terminal:
            note(f"line {self.line:,}, {progress.rows_per_second:,.0f} rows a second")

    def put(self, number: int, key: str | None, reason: str) -> None:
        """A line is no good."""
        import json

        self.count += 1
        if self._file is not None:
            self._file.write(json.dumps({"line": number, "id": key, "reason": reason}) + "\n")
        if self.count <= _TOLD:
            note(f"line {number}: {reason}")
        elif self.count == _TOLD + 1:
            note("… and more" if self._file is not None else "… and more: --rejects has them all")

    def close(self) -> None:
        """All is told."""
        if self._file is not None:
            self._file.close()


def export(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to, .gz too; - is the standard output.")
    ] = Path("-"),
    *,
    where: Where = None,
    batch_size: Annotated[int, typer.Option(min=1, max=100_000, help="Rows at a time.")] = 500,
    model: Model = None,
    collection: Name = None,
    namespace: Namespace = None,
    metadata: Models = None,
    embedded: Embedded = False,
) -> None:
    """Write rows as lines of JSON, in the order of their ids, as `ingest` reads them.

    Page by page, each as it is at its moment; `qortex-db export` has all tables at one moment, and
    Parquet. What is encrypted in the database is in clear here.
    """
    _refuse_parquet(file, "`qortex-db export` writes whole tables as such")
    chosen = choose(model, collection, metadata, namespace)
    wanted = read_where(where)
    # A device or a pipe is written to as it is.
    to_file = str(file) != "-" and (file.is_file() or not file.exists())
    part = file.with_name(f"{file.stem}.part{file.suffix}") if to_file else file
    try:
        count = run(_export(part, chosen, wanted, batch_size, embedded=embedded))
        if to_file:
            part.replace(file)
    except OSError as error:
        if not to_file:
            raise  # nobody reads any more
        fail(f"{file} can't be written: {error.strerror}.")
    finally:
        if to_file:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    note(f"{count:,} rows are written.")


async def _export(
    path: Path, chosen: Chosen, where: Any, batch_size: int, *, embedded: bool
) -> int:
    from qortex_db.cli.vectors.json_rows import written
    from qortex_db.cli.vectors.lines import written_to

    count = 0
    async with vectors_of(chosen, embedded=embedded) as vectors:
        with written_to(path) as out:
            async for record in vectors.stream(batch_size=batch_size, where=where):
                out.write(written(record))
                count += 1
    return count
