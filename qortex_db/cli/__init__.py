"""The command line."""

from qortex_db.cli.commands import app

__all__ = ["app"]
