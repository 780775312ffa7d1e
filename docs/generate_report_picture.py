"""Take the picture of a report, docs/report.png, over the made-up data of the report's tests.

It takes a browser that is here, playwright, which drives it (`make look` installs it), and Pillow.

    python docs/generate_report_picture.py
"""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path

from look import FLAGS, browser
from PIL import Image
from playwright.sync_api import sync_playwright

from qortex_db import Database, Settings, migrations
from qortex_db.report import page, read
from qortex_db.testing import throwaway

ROOT = Path(__file__).parents[1]
WIDTH = 1280


async def report(dsn: str) -> str:
    """The page over some weeks of a service's memory."""
    sys.path.append(str(ROOT / "tests"))
    from support.report_data import fill  # noqa: PLC0415 - found by now

    settings = Settings(dsn=dsn, dimensions=384, learning_history=True)
    await migrations.upgrade(settings)
    async with Database.connect(settings) as db:
        await fill(db)
        return page(await read(db))


def picture(html: str, program: str) -> Image.Image:
    """All of a page as a browser shows it."""
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=program, args=list(FLAGS))
        shown = opened.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        shown.set_content(html, wait_until="load")
        taken = shown.screenshot(full_page=True)
        opened.close()
    return Image.open(io.BytesIO(taken))


def main() -> int:
    """Fill a database, write its report, and take the picture; 2 where there is no browser."""
    program = browser()
    if program is None:
        sys.stderr.write("No browser is here that could take the picture.\n")
        return 2
    with throwaway() as server, server.database() as dsn:
        html = asyncio.run(report(dsn))
    few = picture(html, program).convert("RGB").quantize(256)  # a third of the size
    few.save(ROOT / "docs" / "report.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
