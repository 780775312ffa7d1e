"""Ctrl-C and SIGTERM of a command: one line and a status, whenever they come.

Importing takes most of a second, so this is the first that the package imports; where it is not
the command, nothing happens.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_said = False


def install() -> None:
    """From now on a signal ends the process at once: there is nothing yet to be put in order."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, _end)


def ignore() -> None:
    """All is done: Python would reset our handlers on its way out, and a signal kill it mutely."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def status_of(number: int) -> int:
    """What a shell expects after a signal."""
    return 128 + number


def say() -> None:
    """Say that it was stopped, once."""
    global _said  # noqa: PLW0603 - of the process, as signals are
    if not _said:
        _said = True
        os.write(2, b"Stopped.\n")


def _end(number: int, _: object) -> None:
    say()
    os._exit(status_of(number))


def _is_command() -> bool:
    started = (getattr(sys, "argv", None) or [""])[0]
    as_module = started == "-m" and "qortex_db" in sys.orig_argv
    return as_module or os.path.basename(started) in {"qortex-db", "qortex-db.exe"}  # noqa: PTH119


if _is_command():
    install()
