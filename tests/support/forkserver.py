"""A process that has the imports behind it, and forks programs: a start without a second of them.

Run with the path of a socket. Whoever connects sends a program's arguments, folder, environment and
three standard streams, and reads its exit code.
"""

from __future__ import annotations

import builtins
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType

# Not `qortex_db.cli`: its consoles read the environment when they are made.
PRELOADED = (
    "alembic.autogenerate",
    "alembic.config",
    "qortex_db.migrations",
    "rich.progress",
    "rich.table",
    "typer",
)


def accepted(path: str) -> socket.socket:
    """A connection, in a process of its own; this one goes on until its input ends."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                return connection
            connection.close()
    sys.exit()


def become_the_program(connection: socket.socket) -> list[str]:
    """Fork once more; what stays tells the exit code, the child takes over what was sent."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    with connection:
        message, streams, _, _ = socket.recv_fds(connection, 65_536, 3)
        while more := connection.recv(65_536):
            message += more
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    request = json.loads(message)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    return request["arguments"]


def run(arguments: list[str]) -> None:
    """As `python` does with -W, -m, -c or the path of a script."""
    kind, *rest = arguments
    if kind.startswith("-W"):
        action, _, category, module = kind.removeprefix("-W").split(":")
        warnings.filterwarnings(action, "", getattr(builtins, category), f"{module}\\Z")
        kind, *rest = rest
    if kind == "-m":
        sys.argv, sys.path[0] = rest, str(Path.cwd())
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        sys.modules["__main__"] = ModuleType("__main__")
        exec(rest[0], sys.modules["__main__"].__dict__)  # noqa: S102
    else:
        sys.argv, sys.path[0] = [kind, *rest], str(Path(kind).parent)
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    for name in PRELOADED:
        import_module(name)
    gc.freeze()  # else the end of each program would look through what is imported
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for those who tell
    run(become_the_program(accepted(sys.argv[1])))
