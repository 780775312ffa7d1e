"""A contender's first moments in a fresh process: import, opening, the first search, later ones.

With "open" as the last argument it opens and ends.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

_OPENED = 3


async def main() -> None:
    name, place, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    queries = np.load(folder / "queries.npy")
    marks = [time.perf_counter()]
    contender = importlib.import_module(f"contenders.{name}").Contender()
    marks.append(time.perf_counter())
    await contender.open(place)
    marks.append(time.perf_counter())
    for i in range(0 if "open" in sys.argv[4:] else 52):
        await contender.search(queries[i % len(queries)])
        marks.append(time.perf_counter())
    await contender.close()
    if len(marks) == _OPENED:
        return
    took = np.diff(marks)
    names = ("import", "open", "first", "second")
    answer = dict(zip(names, took[:4].tolist(), strict=True))
    print(json.dumps(answer | {"later": float(np.median(took[4:]))}))


if __name__ == "__main__":
    asyncio.run(main())
