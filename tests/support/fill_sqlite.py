"""Fills SQLite databases as qortex 0.8.1 does: its statements, sqlite-vec itself, and its stores.

Run by `.venv-peers/bin/python fill_sqlite.py FOLDER COUNT`, whose SQLite loads extensions.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pysqlite3
import sqlite_vec
from framework_rows import DIMENSIONS, matrix


def vectors(folder: Path, count: int) -> None:
    connection = pysqlite3.connect(str(folder / "vectors.db"))
    connection.enable_load_extension(True)
    sqlite_vec.load(connection)
    connection.execute("CREATE TABLE vec_meta (id TEXT PRIMARY KEY, row_id INTEGER NOT NULL)")
    connection.execute(f"CREATE VIRTUAL TABLE vec_index USING vec0(embedding float[{DIMENSIONS}])")

    def add(key: str, vector: Any) -> None:
        given = (vector.tobytes(),)
        row = connection.execute("INSERT INTO vec_index(embedding) VALUES (?)", given).lastrowid
        connection.execute("INSERT INTO vec_meta(id, row_id) VALUES (?, ?)", (key, row))

    def remove(key: str) -> None:
        query = "SELECT row_id FROM vec_meta WHERE id = ?"
        (row,) = connection.execute(query, (key,)).fetchone()
        connection.execute("DELETE FROM vec_index WHERE rowid = ?", (row,))
        connection.execute("DELETE FROM vec_meta WHERE id = ?", (key,))

    made = matrix(count)
    for number in range(count):
        add(f"node {number}", made[number] if number % 7 else -made[number])
    for number in range(0, count, 7):  # a vector that is set again gets another place
        remove(f"node {number}")
        add(f"node {number}", made[number])
    connection.commit()


def interoception(folder: Path, count: int) -> None:
    connection = pysqlite3.connect(str(folder / "interoception.db"))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(
        "CREATE TABLE teleportation_factors (node_id TEXT PRIMARY KEY, "
        "weight REAL NOT NULL DEFAULT 1.0, updated_at TEXT NOT NULL DEFAULT '');"
        "CREATE TABLE edge_buffer (src_id TEXT NOT NULL, tgt_id TEXT NOT NULL, "
        "hit_count INTEGER NOT NULL DEFAULT 0, scores TEXT NOT NULL DEFAULT '[]', "
        "last_seen TEXT NOT NULL DEFAULT '', PRIMARY KEY (src_id, tgt_id));"
    )
    times = ("2026-11-29T12:00:00+00:00", "", "yesterday")
    connection.executemany(
        "INSERT INTO teleportation_factors VALUES (?, ?, ?)",
        [(f"node {at}", 0.5 + at / 8, times[at % 3]) for at in range(count)],
    )
    connection.executemany(
        "INSERT INTO edge_buffer VALUES (?, ?, ?, ?, ?)",
        [
            (f"a{at}", f"b{at}", at, json.dumps([at / 4]) if at % 5 else "{no list", times[at % 3])
            for at in range(count)
        ],
    )
    connection.commit()


def learning(folder: Path, count: int) -> None:
    (folder / "learning").mkdir()
    connection = pysqlite3.connect(str(folder / "learning" / "prompts.db"))
    connection.execute(
        "CREATE TABLE arm_states (context_hash TEXT NOT NULL, arm_id TEXT NOT NULL, "
        "alpha REAL NOT NULL DEFAULT 1.0, beta REAL NOT NULL DEFAULT 1.0, "
        "pulls INTEGER NOT NULL DEFAULT 0, total_reward REAL NOT NULL DEFAULT 0.0, "
        "last_updated TEXT NOT NULL DEFAULT '', PRIMARY KEY (context_hash, arm_id))"
    )
    # A reward of 3.0 makes beta negative there.
    states = [
        ("default", f"arm {at}", 1 + at / 2, 1.5 if at != 11 else -1.0, at, at / 2, "")
        for at in range(count)
    ]
    connection.executemany("INSERT INTO arm_states VALUES (?, ?, ?, ?, ?, ?, ?)", states)
    connection.commit()


if __name__ == "__main__":
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    vectors(folder, count)
    interoception(folder, count // 5)
    learning(folder, count // 5)
