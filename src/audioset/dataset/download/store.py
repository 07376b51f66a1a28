"""An SQLite file that several threads and processes share, with errors in words.

The file keeps SQLite's rollback journal. Write-ahead logging would be faster, and does not work on network disks.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from audioset.errors import ConflictError, DataError, OutputError
from audioset.records import decode_json

VERSION = 1
APPLICATION_ID = 0x41_53_4C_47  # "ASLG"
BUSY_TIMEOUT_S = 60.0

AnyStore = TypeVar("AnyStore", bound="Store")


class Store:
    """A file of tables, and of settings by name; one of the schema's statements makes ``settings (name, value)``."""

    def __init__(self, path: Path, schema: Sequence[str]) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._explained():
            self._database = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(schema)
            except BaseException:
                self._database.close()
                raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def __enter__(self: AnyStore) -> AnyStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def setting(self, name: str, default: Any) -> Any:
        """A value that all processes share."""
        with self._reading():
            return self._get(name, default)

    def set_setting(self, name: str, value: Any) -> None:
        """Change a shared value; anything that JSON can hold."""
        with self._writing():
            self._set(name, value)

    def _get(self, name: str, default: Any) -> Any:
        row = self._database.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return default if row is None else decode_json(row[0], f"the setting {name!r} of {self.path}", DataError)

    def _set(self, name: str, value: Any) -> None:
        self._database.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, json.dumps(value)))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Let many changes be one: all or nothing, and much faster."""
        with self._writing():
            yield

    def _prepare(self, schema: Sequence[str]) -> None:
        with closing(self._database.execute("PRAGMA journal_mode = DELETE")) as answer:
            answer.fetchone()
        with self._writing() as database:
            version, kind = (
                database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id")
            )
            if kind == APPLICATION_ID and version == VERSION:
                self._check_tables(schema)
                return
            if kind == APPLICATION_ID:
                raise ConflictError(
                    f"{self.path} has version {version}; expected {VERSION}. Next step: update audioset"
                )
            if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise DataError(
                    f"{self.path} belongs to another program; expected a ledger. Next step: choose another name"
                )
            for statement in schema:
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {VERSION}")

    def _check_tables(self, schema: Sequence[str]) -> None:
        """Refuse tables other than ours: a view or a trigger would run what somebody else wrote."""
        found = self._database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL LIMIT 100").fetchall()
        if {" ".join(str(sql).split()) for (sql,) in found} != {" ".join(statement.split()) for statement in schema}:
            raise DataError(
                f"{self.path} has other tables than a ledger of version {VERSION}. Likely cause: another program has "
                "changed it. Next step: restore it, or adopt the files"
            )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and nobody else meanwhile."""
        with self._lock, self._explained():
            if self._database.in_transaction:
                yield self._database
                return
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._explained():
            yield self._database

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What SQLite says, as one of our errors, and what only a damaged file can hold."""
        try:
            yield
        except (UnicodeError, OverflowError, MemoryError) as error:
            raise DataError(f"{self.path} is damaged: {error}. Next step: restore it, or adopt the files") from error
        except sqlite3.Error as error:
            text = str(error)
            if "locked" in text:
                raise ConflictError(
                    f"{self.path} is held by another process for {BUSY_TIMEOUT_S:.0f} s. Likely cause: a disk without "
                    "locks. Next step: give each machine a ledger of its own, and merge them"
                ) from error
            if "full" in text or "readonly" in text or "unable to open" in text or "disk I/O" in text:
                raise OutputError(
                    f"cannot write {self.path}: {text}. Next step: free some space, or check the folder and its rights"
                ) from error
            if isinstance(error, sqlite3.ProgrammingError):
                raise
            raise DataError(
                f"{self.path} cannot be read as a ledger: {text}. Next step: restore it, or adopt the files"
            ) from error
