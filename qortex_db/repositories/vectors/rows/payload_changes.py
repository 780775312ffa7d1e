"""Changes of payloads by paths, as filters name them: what is taken out, and what is put in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import ARRAY, bindparam, case, cast, literal_column, or_
from sqlalchemy.dialects.postgresql import JSONB

from qortex_db import checks, messages
from qortex_db.errors import InvalidInputError
from qortex_db.filters import read_path
from qortex_db.repositories import validation
from qortex_db.sql import Text, func
from qortex_db.values.jsonable import simplified, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement

    from qortex_db.limits import Limits
    from qortex_db.repositories.vectors.rows.encrypted_columns import EncryptedColumns

MAX_REMOVED: Final = 64
"""The most paths that one `merge_payload` takes out."""
MAX_CHANGES: Final = 64
"""The most of them together with values at paths of more than one key and the objects on their way:
each is a function around those before."""

Form: TypeAlias = tuple[int, tuple[bool, ...], int]
"""What makes one change another statement than the next: how many paths are taken out; of each
object on the way to a value whether it may be an array; and how many values lie so deep."""
_Steps: TypeAlias = tuple[str, ...]

_MOST_DIGITS: Final = 9
_EMPTY: Final = literal_column("'{}'::jsonb", JSONB)
_NOWHERE: Final = literal_column("'{}'::text[]", ARRAY(Text))
_OBJECT: Final = literal_column("'object'", Text)
_ARRAY: Final = literal_column("'array'", Text)


class PayloadChange:
    """Paths that are taken out of a payload, and then values that are put in at paths.

    Args:
        limits: Of the values in sum.
        encrypted: What of the payload is stored encrypted; None for nothing.

    Attributes:
        form: Of the statement.

    Raises:
        InvalidInputError: A path or a value was refused, or one path lies in another.
    """

    def __init__(
        self,
        values: Mapping[str, Any] | None,
        remove: Sequence[str],
        limits: Limits,
        encrypted: EncryptedColumns | None = None,
    ) -> None:
        given: Any = {} if values is None else simplified(values, name="values")
        validation.check_payload(given, name="values", limits=limits)
        given_paths = validation.check_list(remove, name="remove", of="list of paths")
        self._removed = [_steps(path, f"remove[{i}]") for i, path in enumerate(given_paths)]
        put = {
            _steps(name, f"values[{messages.shown(name)}]"): value for name, value in given.items()
        }
        if encrypted is not None:
            for path in (*put, *self._removed):
                encrypted.check_whole(path)
            put = {path: encrypted.sealed(path[0], value) for path, value in put.items()}
        ways = {path[:i] for path in put for i in range(1, len(path))}
        if len(put) < len(given) or ways & put.keys():
            raise InvalidInputError("values names a path twice, or one inside another: pass one.")
        plain = {path[0]: value for path, value in put.items() if len(path) == 1}
        self._plain = validation.check_payload(plain, name="values", limits=limits)
        self._nested = {
            path: to_json(value, name="values", limits=limits)
            for path, value in sorted(put.items())
            if len(path) > 1
        }
        self._ways = sorted(ways, key=lambda way: (len(way), way))
        if len(self._removed) > MAX_REMOVED:
            raise InvalidInputError(
                f"remove has {len(self._removed)} paths; at most {MAX_REMOVED} fit."
            )
        deep = len(self._ways) + len(self._nested)
        if deep and deep + len(self._removed) > MAX_CHANGES:
            raise InvalidInputError(
                f"values deeper than a key, the objects on their way and what is removed are "
                f"{deep + len(self._removed)} together; at most {MAX_CHANGES} fit."
            )
        if not (put or self._removed):
            raise InvalidInputError("Nothing to change: pass values or remove.")
        steps_after: dict[_Steps, list[str]] = {way: [] for way in self._ways}
        for path in (*self._ways, *self._nested):
            if path[:-1]:
                steps_after[path[:-1]].append(path[-1])
        are_positions = (all(map(_is_position, steps_after[way])) for way in self._ways)
        self.form: Form = (len(self._removed), tuple(are_positions), len(self._nested))

    def params(self) -> dict[str, Any]:
        """The parameters of `changed_payload`."""
        params: dict[str, Any] = {"row_values": self._plain}
        params |= {f"row_path_{i}": list(path) for i, path in enumerate(self._removed)}
        params |= {f"row_way_{i}": list(way) for i, way in enumerate(self._ways)}
        for i, (path, value) in enumerate(self._nested.items()):
            params |= {f"row_place_{i}": list(path), f"row_put_{i}": value}
        return params


def changed_payload(payload: ColumnElement[Any], form: Form) -> ColumnElement[Any]:
    """A payload after a change of this form; its parameters are those of `PayloadChange`."""
    removed, ways, nested = form
    stored = payload
    for i in range(removed):
        path = _path(f"row_path_{i}")
        # Of an array a key that is no position would be an error.
        there = case((_at(stored, path).is_not(None), path), else_=_NOWHERE)
        payload = payload.op("#-", return_type=JSONB())(there)
    values = cast(bindparam("row_values", type_=Text), JSONB)
    before = payload = payload.op("||", return_type=JSONB())(values)
    for i, may_be_array in enumerate(ways):
        # What is there is asked of the payload as it was, or each step would double the expression.
        way = _path(f"row_way_{i}")
        found = _at(before, way)
        kind = func.jsonb_typeof(found)
        is_kept = kind == _OBJECT
        if may_be_array:
            is_kept = or_(is_kept, kind == _ARRAY)
        kept = case((is_kept, found), else_=_EMPTY)
        payload = func.jsonb_set(payload, way, kept, type_=JSONB())
    for i in range(nested):
        value = cast(bindparam(f"row_put_{i}", type_=Text), JSONB)
        payload = func.jsonb_set(payload, _path(f"row_place_{i}"), value, type_=JSONB())
    return payload


def _path(parameter: str) -> ColumnElement[Any]:
    return cast(bindparam(parameter), ARRAY(Text))


def _at(payload: ColumnElement[Any], path: ColumnElement[Any]) -> ColumnElement[Any]:
    return payload.op("#>", return_type=JSONB())(path)


def _is_position(step: str) -> bool:
    return step.isascii() and step.isdigit() and len(step) <= _MOST_DIGITS


def _steps(path: object, name: str) -> _Steps:
    return read_path(checks.check_text(path, name=name)).steps
