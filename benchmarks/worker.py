"""One contender in a process of its own: it is told a work by a line of JSON and answers by one.

It runs in the contender's environment, so it imports nothing but the standard library, numpy and
that contender.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from works.learning import Learning
from works.searching import Searching
from works.writing import Writing


class Works(Searching, Writing, Learning):
    """Everything that is timed, over a contender's single operations."""


async def main() -> None:
    name, place, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a contender prints is no answer
    contender = importlib.import_module(f"contenders.{name}").Contender()
    await contender.open(place)
    works = Works(contender, folder)
    loop = asyncio.get_running_loop()
    about = {"about": getattr(contender, "about", "")}
    print(json.dumps(about), file=answers, flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        try:
            answer = await getattr(works, order.pop("work"))(**order)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer), file=answers, flush=True)
    await contender.close()


if __name__ == "__main__":
    asyncio.run(main())
