"""Write the types of `qortex_db.sync` from the async classes: `python docs/generate_sync.py`."""

from __future__ import annotations

import ast
import builtins
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, TypeVar

from qortex_db import database, sync, uow, view
from qortex_db.sync.forwarding import OURS

PAGE: Final = Path(sync.__file__).with_suffix(".pyi")
CLASSES: Final = (
    *(each for each in OURS if each.__module__.startswith("qortex_db.repositories")),
    uow.Repositories,
    uow.UnitOfWork,
    view.Lanes,
    view.DatabaseView,
    sync.Database,
)
"""In an order in which bases come first."""
GENERIC: Final = {"VectorRepository": "Generic[IdT]"}
BASES: Final = {"UnitOfWork": "Repositories", "DatabaseView": "Lanes", "Database": "Lanes"}
BASES["Lanes"] = "Repositories"
SYNC: Final = {"AsyncIterator": "Iterator", "AbstractAsyncContextManager": "AbstractContextManager"}
ATTRIBUTES: Final = {"UnitOfWork": ["    session: Session"]}
LEFT_OUT: Final = {"executor", "engine", "from_engine"}
"""What belongs to the loop that it was made in."""
FORWARDING: Final = "qortex_db.sync.forwarding"
HEAD: Final = "# Written by docs/generate_sync.py from the async classes' methods.\n\n"


class _Waits(ast.NodeTransformer):
    """Annotations of what is awaited as of what is waited for."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Name(SYNC.get(node.id, node.id))

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        if isinstance(node.value, ast.Name) and node.value.id == "Awaitable":
            found: ast.expr = self.visit(node.slice)
            return found
        return ast.Subscript(self.visit(node.value), self.visit(node.slice))


class Stub:
    """The classes, and the imports of what their annotations name."""

    def __init__(self) -> None:
        self.imports: dict[str, set[str]] = {}
        self.type_variables: set[str] = set()
        self.own = {each.__name__ for each in CLASSES}
        self._import("sqlalchemy.orm", "Session")

    def text(self) -> str:
        """All of it."""
        classes = "\n\n".join(self._class(each) for each in CLASSES)
        lines = [
            f"{f'from {module} ' if module else ''}import {', '.join(sorted(names))}"
            for module, names in sorted(self.imports.items())
        ]
        variables = [f'{each} = TypeVar("{each}")' for each in sorted(self.type_variables)]
        return "\n".join(
            [HEAD, *lines, "", '__all__ = ["Database"]', "", *variables, "", classes, ""]
        )

    def _class(self, kind: type) -> str:
        base = BASES.get(kind.__name__) or GENERIC.get(kind.__name__, "")
        if "Generic" in base:
            self._import("typing", "Generic")
            self._import("qortex_db.repositories.vectors.rows.records", "IdT")
        lines = [f"class {kind.__name__}({base}):" if base else f"class {kind.__name__}:"]
        lines += ATTRIBUTES.get(kind.__name__, [])
        seen = set(LEFT_OUT)
        # What it forwards to has more.
        owners = (*kind.__mro__, database.Database) if kind is sync.Database else kind.__mro__
        for owner in owners:
            of_ours = owner.__module__.startswith("qortex_db.")
            inherited = owner is not kind and owner.__name__ in self.own - {"Database"}
            if not of_ours or inherited or owner.__module__ == FORWARDING:
                continue
            members = [node for node in self._members(owner) if node.name not in seen]
            overloaded = {node.name for node in members if self._is_overload(node)}
            for node in members:
                is_public = node.name[0] != "_" or owner is sync.Database
                if is_public and (self._is_overload(node) or node.name not in overloaded):
                    lines += self._method(node, inspect.getmodule(owner))
            seen |= {node.name for node in members}
        return "\n".join(lines)

    @staticmethod
    def _is_overload(node: Any) -> bool:
        return any(ast.unparse(each) == "overload" for each in node.decorator_list)

    @staticmethod
    def _members(owner: type) -> list[Any]:
        tree = ast.parse(inspect.getsource(sys.modules[owner.__module__]))
        (found,) = (
            node
            for node in tree.body
            if isinstance(node, ast.ClassDef) and node.name == owner.__name__
        )
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        return [node for node in found.body if isinstance(node, kinds)]

    def _method(self, node: Any, module: Any) -> list[str]:
        arguments = node.args
        for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            each.annotation = self._annotation(each.annotation, module)
        for each in (arguments.vararg, arguments.kwarg):
            if each is not None:
                each.annotation = self._annotation(each.annotation, module)
        dots = ast.Constant(...)
        arguments.defaults = [dots for _ in arguments.defaults]
        arguments.kw_defaults = [each and dots for each in arguments.kw_defaults]
        returns = self._annotation(node.returns, module)
        decorators = [self._decorator(each) for each in node.decorator_list]
        head = ast.FunctionDef(node.name, arguments, [ast.Expr(dots)], [], returns, lineno=0)
        head.type_params = []  # Python 3.12 has it
        return [
            *(f"    @{each}" for each in decorators if each),
            *(f"    {line}" for line in ast.unparse(head).splitlines()),
        ]

    def _decorator(self, node: ast.expr) -> str:
        name = ast.unparse(node).rpartition(".")[2]
        if name == "overload":
            self._import("typing", "overload")
        kept = {"overload", "property", "classmethod", "staticmethod"}
        return {"cached_property": "property"}.get(name, name if name in kept else "")

    def _annotation(self, node: ast.expr | None, module: Any) -> ast.expr | None:
        if node is None:
            return None
        found: ast.expr = _Waits().visit(node)
        for each in ast.walk(found):
            if isinstance(each, ast.Name) and each.id not in self.own:
                self._find(each.id, module)
        return found

    def _find(self, name: str, module: Any) -> None:
        if name in SYNC.values():
            self._import("contextlib" if "Context" in name else "collections.abc", name)
        elif hasattr(builtins, name):
            return
        elif found := _imported(name, module):
            self._import(*found)
        elif isinstance(vars(module).get(name), TypeVar):
            self._import("typing", "TypeVar")
            self.type_variables.add(name)
        elif name in vars(module):
            self._import(module.__name__, name)

    def _import(self, module: str, name: str) -> None:
        self.imports.setdefault(module, set()).add(name)


def _imported(name: str, module: Any) -> tuple[str, str] | None:
    """Where a module imports a name from, for its annotations too."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        for alias in node.names:
            if (alias.asname or alias.name) == name:
                said = f"{alias.name} as {name}" if alias.asname else name
                return (str(node.module) if isinstance(node, ast.ImportFrom) else "", said)
    return None


def stub() -> str:
    """The text, as the formatter has it."""
    text = Stub().text()
    ruff = [str(Path(sys.executable).with_name("ruff"))]
    name = ["--stdin-filename", str(PAGE)]
    fixed = [*ruff, "check", "--select", "I", "--fix", "--quiet", *name, "-"]
    for command in (fixed, [*ruff, "format", *name, "-"]):
        text = subprocess.run(  # noqa: S603 - our own
            command, input=text, capture_output=True, text=True, check=True
        ).stdout
    return text


if __name__ == "__main__":
    PAGE.write_text(stub(), encoding="utf-8")
