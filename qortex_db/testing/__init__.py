"""What a host tests with: a throwaway server, a database for each test, and units of work undone.

pytest's fixtures over it are in `pytest_qortex_db`; `qortex_db.testing.factories` builds rows and
records.
"""

from qortex_db.testing.databases import asyncpg_url, create_all, rolled_back
from qortex_db.testing.server import Server, throwaway

__all__ = ["Server", "asyncpg_url", "create_all", "rolled_back", "throwaway"]
