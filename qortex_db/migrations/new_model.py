"""A model of a new collection, as a file that its owner goes on with."""

from __future__ import annotations

import importlib
import keyword
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

from qortex_db.errors import InvalidInputError
from qortex_db.migrations.new_collection import write_revision
from qortex_db.models.vector_spec import DEFAULT_VECTOR, HNSW, VectorSpec
from qortex_db.names import MAX_NAME_BYTES, own_tables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Table

    from qortex_db.models import Partitions

_OWN_BASE: Final = '''
class Base(DeclarativeBase):
    """The tables of this file; give them your own base instead, if there is one."""

'''
_KINDS: Final = {"sparse": "SparseVector | None"}
_NAMES: Final = ("Base", "Collection", "HNSW", "Mapped", "Partitions", "SparseVector")
"""Of what a model's file imports, those that a class could be called too."""
_LONG: Final = 64
"""Characters of what stands in a collection, from which on it gets a line of its own."""
_DENSE: Final = "NDArray[np.float32] | None"


@dataclass(frozen=True, slots=True)
class NewModel:
    """What a new collection is.

    Attributes:
        table: Its name.
        vectors: Its vectors, its own as "vec".
        base: A declarative base, as package.module:Base; None to declare one in the file.
        language: Of the documents.
        partitions: What its rows lie in.
        indexes: Paths of payloads with the kinds of their indexes.

    Raises:
        InvalidInputError: The name is not a plain one.
    """

    table: str
    vectors: Mapping[str, VectorSpec]
    base: str | None = None
    language: str = "simple"
    partitions: Partitions | None = None
    indexes: Sequence[tuple[str, str]] = field(default=())

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.table) or keyword.iskeyword(self.table):
            raise InvalidInputError(
                f"{self.table} has to be a plain name, as notes or user_passages."
            )
        if len(self.table) > MAX_NAME_BYTES:
            raise InvalidInputError(f"{self.table} is longer than {MAX_NAME_BYTES} characters.")
        if self.table in own_tables or self.name in {*_NAMES, self._base}:
            raise InvalidInputError(
                f"{self.table} is what qortex-db, or the file of the model, calls something else: "
                "choose another name."
            )

    @property
    def name(self) -> str:
        """Of the class."""
        return "".join(part.capitalize() for part in self.table.split("_"))

    def text(self) -> str:
        """The file."""
        title = self.table.replace("_", " ").capitalize()
        imports = self._imports()
        further = "".join(
            f"\n    {name}: Mapped[{_KINDS.get(spec.storage, _DENSE)}] = vector_column(\n"
            f"        {_spec(spec)}\n    )"
            for name, spec in self.vectors.items()
            if name != DEFAULT_VECTOR
        )
        declared = "".join(
            f'\npayload_index({self.name}.__table__, {_said(path)}, "{kind}")'
            for path, kind in self.indexes
        )
        return (
            f'"""The collection `{self.table}`."""\n\n{imports}\n'
            f"{'' if self.base else _OWN_BASE}\n"
            f'class {self.name}(VectorMixin, {self._base}):\n    """{title}."""\n\n'
            f'    __tablename__ = "{self.table}"\n'
            f"    __collection__ = Collection({self._collection()})\n"
            + (f"{further}\n" if further else "")
            + (f"\n{declared}\n" if declared else "")
        )

    @property
    def _base(self) -> str:
        return "Base" if self.base is None else self.base.partition(":")[2]

    def _collection(self) -> str:
        said = [_spec(self.vectors[DEFAULT_VECTOR])]
        if self.language != "simple":
            said.append(f"language={_said(self.language)}")
        if self.partitions is not None:
            said.append(f"partitions=Partitions({self.partitions.modulus})")
        line = ", ".join(said)
        return line if len(line) <= _LONG else f"\n        {line}\n    "

    def _imports(self) -> str:
        names = ["Collection", "VectorMixin", "VectorSpec"]
        specs = self.vectors.values()
        if any("HNSW(" in _spec(spec) for spec in specs):
            names.append("HNSW")
        if self.partitions is not None:
            names.append("Partitions")
        if self.indexes:
            names.append("payload_index")
        if len(self.vectors) > 1:
            names.append("vector_column")
        others = {spec.storage for name, spec in self.vectors.items() if name != DEFAULT_VECTOR}
        lines = []
        if others - {"sparse"}:
            lines += ["import numpy as np", "from numpy.typing import NDArray"]
        orm = [*([] if self.base else ["DeclarativeBase"]), *(["Mapped"] if others else [])]
        if orm:
            lines.append(f"from sqlalchemy.orm import {', '.join(orm)}")
        if self.base is not None:
            lines.append(f"from {self.base.partition(':')[0]} import {self._base}")
        ordered = sorted(names, key=lambda each: (not each.isupper(), each[0].islower(), each))
        lines.append(f"from qortex_db import {', '.join(ordered)}")
        if "sparse" in others:
            lines.append("from qortex_db.types import SparseVector")
        return "\n".join(lines) + "\n"

    def declared(self, metadata: MetaData) -> Table:
        """The table as the file declares it, in a metadata of its own that names as this one."""
        alone = MetaData(schema=metadata.schema, naming_convention=metadata.naming_convention)
        base: Any = type("Base", (DeclarativeBase,), {"metadata": alone})
        lines = self.text().splitlines()
        if self.base is not None:
            lines.remove(f"from {self.base.partition(':')[0]} import {self._base}")
        scope: dict[str, Any] = {self._base: base, "__name__": f"{__name__}.{self.table}"}
        code = compile("\n".join(lines), f"<{self.table}>", "exec", dont_inherit=True)
        exec(code, scope)  # noqa: S102 - it was written here
        table: Table = scope[self.name].__table__
        return table


def write_model(
    new: NewModel,
    file: Path | None = None,
    *,
    metadata: MetaData | None = None,
    ini: Path,
    head: str | None = None,
) -> tuple[Path, Path]:
    """Write a collection's model, and the revision that makes its table; no server is asked.

    Args:
        file: Of the model; by default beside the module of its base.
        metadata: Of the base, where there is one.
        ini: The host's alembic.ini.
        head: The revision to follow; by default the host's own.

    Returns:
        The file of the model, and that of the revision.

    Raises:
        InvalidInputError: One of them can't be written, and then none is.
    """
    if file is None:
        if new.base is None:
            raise InvalidInputError("Say which file the model is written to.")
        module = importlib.import_module(new.base.partition(":")[0])
        file = Path(str(module.__file__)).parent / f"{new.table}.py"
    if file.exists():
        raise InvalidInputError(f"{file} is there already; nothing was written.")
    if metadata is not None and new.table in metadata.tables:
        raise InvalidInputError(f"{new.base} has a table {new.table} already; nothing was written.")
    revision = write_revision(ini, new.declared(metadata or MetaData()), head=head)
    try:
        file.write_text(new.text(), encoding="utf-8")
    except OSError as error:
        revision.unlink()
        raise InvalidInputError(
            f"{file} could not be written ({error.strerror}); nothing was."
        ) from error
    return file, revision


def _spec(spec: VectorSpec) -> str:
    said = [str(spec.dimensions)]
    for name, default in (("metric", "cosine"), ("storage", "full"), ("quantization", None)):
        if (value := getattr(spec, name)) != default:
            said.append(f"{name}={_said(value)}")
    if spec.index is None:
        said.append("index=None")
    elif spec.index != HNSW():
        told = ", ".join(
            f"{each.name}={_said(value)}"
            for each in fields(spec.index)
            if (value := getattr(spec.index, each.name)) != each.default
        )
        said.append(f"index={type(spec.index).__name__}({told})")
    return f"VectorSpec({', '.join(said)})"


def _said(value: object) -> str:
    """A value in Python, with the quotes that formatters like."""
    said = repr(value)
    plain = isinstance(value, str) and '"' not in said and "\\" not in said
    return f'"{value}"' if plain else said
