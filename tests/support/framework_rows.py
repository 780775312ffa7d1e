"""Odd documents that frameworks are given, and what has to come of them; numpy alone."""

from __future__ import annotations

from typing import Any

import numpy as np

DIMENSIONS = 384


def matrix(count: int) -> Any:
    """Vectors of unit length, so that every metric has the same order."""
    made = np.random.default_rng(18).normal(size=(count, DIMENSIONS))
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made.astype(np.float32)


def text(number: int) -> str:
    return f"Text {number}: naïve 'quotes' \"and\" \\ slashes\n"


def metadata(number: int) -> dict[str, Any]:
    """Of every kind that JSON has."""
    made: dict[str, Any] = {"number": number, "half": number / 2, "is_even": number % 2 == 0}
    if number % 3 == 0:
        made["none"] = None
    if number % 5 == 0:
        made["deep"] = {"a": [1, {"b": "é"}], "large": 2**53 + 1}
    return made
