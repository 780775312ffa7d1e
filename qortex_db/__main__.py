"""The entry of `qortex-db`, which tells how to install the command line where it is missing."""

from __future__ import annotations

import sys
from io import TextIOWrapper

from qortex_db import interrupts


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII terminal gets "?", no traceback
    interrupts.install()
    try:
        import rich  # noqa: F401, PLC0415 - its extra may not be installed

        from qortex_db import cli  # noqa: PLC0415 - the same
    except ModuleNotFoundError as error:
        if error.name not in {"rich", "typer"}:
            raise
        sys.exit('The command line is not installed: pip install "qortex-db[cli]"')
    try:
        cli.app()
    finally:
        interrupts.ignore()


if __name__ == "__main__":
    main()
