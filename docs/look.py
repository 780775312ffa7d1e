"""Look at the built pages in a browser: `make look`.

At each width no page may be wider than its window, and no line of code than its block. What the
pages look like, light and dark, is left to people: `--pictures FOLDER` keeps it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from playwright.sync_api import Page

WIDTHS: Final = (390, 1280, 1600)
"""A telephone, a small screen, one that shows all three columns."""
NARROW: Final = 390
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
FLAGS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# What scrolls inside itself is no wider than its window, but what surrounds it must not scroll.
_WIDER = """() => [document.documentElement, document.querySelector('.content')]
    .filter(one => one && one.scrollWidth > Math.min(one.clientWidth, innerWidth) + 1)
    .map(one => `${one.tagName.toLowerCase()} is ${one.scrollWidth} wide`)"""
_CODE = """() => [...document.querySelectorAll('pre')]
    .filter(one => one.scrollWidth > one.clientWidth + 1)
    .map(one => 'a block of code scrolls: ' + one.textContent.trim().slice(0, 60))"""


def browser() -> str | None:
    """The program of a browser, where there is one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def faults(program: str, pages: Iterable[Path], pictures: Path | None = None) -> Iterator[str]:
    """What is wider than it may be, by page and width.

    Args:
        pages: Files of HTML.
        pictures: A folder for a picture of each, in both modes.
    """
    files = list(pages)
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=program, args=list(FLAGS))
        for width in WIDTHS:
            page = opened.new_page(viewport={"width": width, "height": 900})
            for file in files:
                page.goto(file.as_uri(), wait_until="load")
                found = page.evaluate(_WIDER) + (page.evaluate(_CODE) if width > NARROW else [])
                yield from (f"{file.name} at {width}: {one}" for one in found)
                if pictures is not None:
                    _keep(page, pictures / f"{file.parent.name}_{file.stem}_{width}")
            page.close()
        opened.close()


def _keep(page: Page, stem: Path) -> None:
    for mode in ("light", "dark"):
        page.evaluate("mode => { document.body.dataset.theme = mode }", mode)
        page.screenshot(path=f"{stem}_{mode}.png")


def main() -> int:
    """Say what is wrong; the status is 1 where something is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the HTML was built")
    parser.add_argument("--only", default="**/*.html", help="the pages, by a pattern")
    parser.add_argument("--pictures", type=Path, help="keep pictures in this folder")
    given = parser.parse_args()
    program = browser()
    if program is None:
        sys.stderr.write(f"No browser is here: none of {', '.join(BROWSERS)}.\n")
        return 2
    if given.pictures is not None:
        given.pictures.mkdir(parents=True, exist_ok=True)
    pages = sorted(given.folder.resolve().glob(given.only))
    found = list(faults(program, pages, given.pictures))
    sys.stdout.writelines(
        f"{line}\n" for line in [*found, f"{len(pages)} pages, {len(found)} faults."]
    )
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
