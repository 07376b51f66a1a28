"""The account of a download: one row for each clip, in one SQLite file that several processes share.

A clip is due from a time on, or never. Pending clips are due at once, failed ones after their back-off, and one that
somebody is fetching when the lease on it runs out; what is done or final is never due. Claiming is therefore one
question, "what is due?", and the answer to a crash is to wait for the lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioset.dataset.download.clips import Clip, Key, Shard, bucket, is_clip_name
from audioset.dataset.download.store import Store
from audioset.errors import DataError
from audioset.records import NUMBER, TEXT, check_record, shown, text, whole

if TYPE_CHECKING:
    from audioset.dataset.download.media import MediaFile
    from audioset.dataset.lists.segments import Segment

NoneType = type(None)
LEDGER_NAME = "ledger.sqlite"
ROWS_AT_ONCE = 10_000

SCHEMA = (
    """
    CREATE TABLE clips (
        video_id TEXT NOT NULL, start_ms INTEGER NOT NULL, end_ms INTEGER NOT NULL,
        bucket INTEGER NOT NULL, subset TEXT NOT NULL, label_ids TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'pending', reason TEXT NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 0,
        due_at REAL DEFAULT 0, owner TEXT,
        file TEXT, n_bytes INTEGER, sha256 TEXT, duration_s REAL, sample_rate INTEGER, n_channels INTEGER,
        codec TEXT, source_format TEXT, fetched_at REAL, host TEXT, video_file TEXT,
        PRIMARY KEY (video_id, start_ms, end_ms)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX clips_due ON clips (due_at, bucket) WHERE due_at IS NOT NULL",
    "CREATE INDEX clips_owned ON clips (owner) WHERE owner IS NOT NULL",
    "CREATE INDEX clips_counted ON clips (subset, state)",
    """
    CREATE TABLE history (
        at REAL, video_id TEXT, start_ms INTEGER, end_ms INTEGER, state TEXT, reason TEXT, owner TEXT
    )
    """,
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
)
MEDIA_COLUMNS = ("file", "n_bytes", "sha256", "duration_s", "sample_rate", "n_channels", "codec", "source_format")
COLUMNS = (
    "video_id, start_ms, end_ms, subset, label_ids, state, reason, attempts, due_at, owner, "
    f"{', '.join(MEDIA_COLUMNS)}, fetched_at, host, video_file"
)
BREAKER = {"until": NUMBER, "state": text(100), "reason": TEXT, "trips": whole(0, 10**9)}
OF_CLIP = "video_id = ? AND start_ms = ? AND end_ms = ?"
NO_FILE = ", ".join(f"{name} = NULL" for name in (*MEDIA_COLUMNS, "fetched_at", "host", "video_file"))


@dataclass(frozen=True)
class Breaker:
    """Why nothing may be fetched, and until when."""

    until: float  # Unix time
    state: str  # the class of failures that opened it
    reason: str
    trips: int  # how often in a row


class Ledger(Store):
    """The account of a download. Safe for several threads, and several processes at once.

    ``clock`` gives Unix time; processes that share a ledger should agree on it to a few seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        super().__init__(path, SCHEMA)
        self._clock = clock
        self._is_choosing = False

    # What there is to do

    def add(self, segments: Iterable[Segment], subset: str, shard: Shard | None = None) -> int:
        """Add clips as pending; those that are there stay as they are. The number of new ones."""
        rows = (
            (*_of_segment(segment), number, subset, ",".join(segment.label_ids))
            for segment in segments
            if (number := bucket(segment.video_id)) % (shard.n if shard else 1) == (shard.index if shard else 0)
        )
        insert = (
            "INSERT OR IGNORE INTO clips (video_id, start_ms, end_ms, bucket, subset, label_ids) VALUES (?,?,?,?,?,?)"
        )
        with self._writing() as database:
            before = database.total_changes
            database.executemany(insert, rows)
            return database.total_changes - before

    def choose(self, segments: Iterable[Segment]) -> None:
        """Let this process claim these clips only."""
        self._is_choosing = True
        with self._writing() as database:
            database.execute(
                "CREATE TEMP TABLE IF NOT EXISTS chosen (video_id TEXT, start_ms INTEGER, end_ms INTEGER, "
                "PRIMARY KEY (video_id, start_ms, end_ms)) WITHOUT ROWID"
            )
            database.execute("DELETE FROM chosen")
            database.executemany("INSERT OR IGNORE INTO chosen VALUES (?, ?, ?)", map(_of_segment, segments))

    def claim(self, owner: str, lease_s: float, shard: Shard | None = None) -> list[Clip]:
        """Take all clips of one video that are due, or none; nobody else gets them until the lease runs out.

        A video that somebody is at is left alone, even where others of its clips are due.
        """
        now = self._clock()
        with self._writing() as database:
            row = database.execute(
                f"SELECT video_id FROM clips WHERE due_at <= ? AND {self._mine(shard)} AND NOT EXISTS (SELECT 1 "
                "FROM clips AS other WHERE other.video_id = clips.video_id AND other.state = 'running' "
                "AND other.due_at > ?) ORDER BY due_at, bucket LIMIT 1",
                (now, now),
            ).fetchone()
            if row is None:
                return []
            due = f"video_id = ? AND due_at <= ? AND {self._mine(shard)}"
            database.execute(
                f"UPDATE clips SET state = 'running', owner = ?, due_at = ? WHERE {due}",
                (owner, now + lease_s, *row, now),
            )
            found = database.execute(f"SELECT {COLUMNS} FROM clips WHERE video_id = ? AND owner = ?", (*row, owner))
            return [_clip(values) for values in found]

    def take(self, key: Key, owner: str, lease_s: float) -> bool:
        """Take one clip, due or not. False if it is done, or somebody is at it."""
        now = self._clock()
        with self._writing() as database:
            found = database.execute(
                f"UPDATE clips SET state = 'running', owner = ?, due_at = ? "
                f"WHERE {OF_CLIP} AND state != 'done' AND NOT (state = 'running' AND due_at > ?)",
                (owner, now + lease_s, *_of(key), now),
            )
            return found.rowcount == 1

    def next_due(self, shard: Shard | None = None) -> float | None:
        """Unix time from which it is worth to claim again, or None if it never is.

        That is at once while somebody is at a clip: it may fail and be due, or its lease run out.
        """
        mine = self._mine(shard)
        with self._reading() as database:
            if database.execute(f"SELECT 1 FROM clips WHERE owner IS NOT NULL AND {mine} LIMIT 1").fetchone():
                return 0.0
            found = database.execute(
                f"SELECT due_at FROM clips WHERE due_at IS NOT NULL AND {mine} ORDER BY due_at, bucket LIMIT 1"
            ).fetchone()
            return None if found is None else float(found[0])

    def given_up(self, states: Iterable[str], shard: Shard | None = None) -> dict[str, int]:
        """Number of clips that this process may have, and that failed so for the last time, by state."""
        wanted = list(states)
        with self._reading() as database:
            found = database.execute(
                f"SELECT state, count(*) FROM clips WHERE state IN ({', '.join('?' * len(wanted))}) "
                f"AND due_at IS NULL AND {self._mine(shard)} GROUP BY state",
                wanted,
            )
            return dict(found.fetchall())

    def _mine(self, shard: Shard | None) -> str:
        """The condition on clips that this process may have."""
        conditions = ["1"]
        if shard is not None and shard.n > 1:
            conditions.append(f"bucket % {shard.n} = {shard.index}")
        if self._is_choosing:
            conditions.append(
                "EXISTS (SELECT 1 FROM chosen WHERE chosen.video_id = clips.video_id "
                "AND chosen.start_ms = clips.start_ms AND chosen.end_ms = clips.end_ms)"
            )
        return " AND ".join(conditions)

    # What became of it

    def finish(
        self, key: Key, owner: str, media: MediaFile, put: Callable[[], None], video_file: str | None = None
    ) -> bool:
        """Note that a clip is done. ``put`` names its file, with the ledger locked. False if the lease was lost."""
        now = self._clock()
        with self._writing() as database:
            if not self._holds(key, owner):
                return False
            put()
            values = tuple(getattr(media, name) for name in MEDIA_COLUMNS)
            database.execute(
                f"UPDATE clips SET state = 'done', reason = '', due_at = NULL, owner = NULL, attempts = attempts + 1, "
                f"{', '.join(f'{name} = ?' for name in MEDIA_COLUMNS)}, fetched_at = ?, host = ?, video_file = ? "
                f"WHERE {OF_CLIP}",
                (*values, now, owner.partition(":")[0], video_file, *_of(key)),
            )
            self._note(key, "done", "", owner)
            return True

    def fail(self, key: Key, owner: str, state: str, reason: str, due_at: float | None) -> bool:
        """Note why a clip could not be had, and from when it may be asked for again. False if the lease was lost."""
        with self._writing() as database:
            if not self._holds(key, owner):
                return False
            database.execute(
                f"UPDATE clips SET state = ?, reason = ?, due_at = ?, owner = NULL, attempts = attempts + 1, {NO_FILE} "
                f"WHERE {OF_CLIP}",
                (state, reason, due_at, *_of(key)),
            )
            self._note(key, state, reason, owner)
            return True

    def release(self, owner: str) -> int:
        """Give back all clips of an owner, as if it had never had them. Their number."""
        with self._writing() as database:
            return database.execute(
                "UPDATE clips SET state = 'pending', owner = NULL, due_at = 0 WHERE owner = ?", (owner,)
            ).rowcount

    def give_back(self, clip: Clip, owner: str) -> None:
        """Put one clip back to what it was."""
        with self._writing() as database:
            state = "pending" if clip.state == "running" else clip.state
            database.execute(
                f"UPDATE clips SET state = ?, owner = NULL, due_at = ? WHERE {OF_CLIP} AND owner = ?",
                (state, clip.due_at, *_of(clip.key), owner),
            )

    def heartbeat(self, owner: str, lease_s: float) -> None:
        """Extend the leases of an owner that is alive."""
        with self._writing() as database:
            database.execute("UPDATE clips SET due_at = ? WHERE owner = ?", (self._clock() + lease_s, owner))

    def owners(self) -> dict[str, float]:
        """Who has clips, and when their leases run out."""
        with self._reading() as database:
            return dict(
                database.execute(
                    "SELECT owner, max(due_at) FROM clips WHERE owner IS NOT NULL GROUP BY owner"
                ).fetchall()
            )

    def retry(self, states: Iterable[str], subset: str | None = None) -> int:
        """Make clips in these states pending, due now, with no attempts counted. Their number."""
        wanted = tuple(states)
        condition = f"state IN ({', '.join('?' * len(wanted))})" + (" AND subset = ?" if subset else "")
        with self._writing() as database:
            return database.execute(
                f"UPDATE clips SET state = 'pending', due_at = 0, attempts = 0, owner = NULL, {NO_FILE} "
                f"WHERE {condition}",
                (*wanted, *([subset] if subset else [])),
            ).rowcount

    def forget_files(self, keys: Iterable[Key]) -> None:
        """Make done clips pending whose files are gone."""
        with self._writing() as database:
            database.executemany(
                f"UPDATE clips SET state = 'pending', due_at = 0, {NO_FILE} WHERE {OF_CLIP} AND state = 'done'",
                [_of(key) for key in keys],
            )

    def put_row(self, clip: Clip) -> None:
        """Write a row as it is, in place of what was there."""
        with self._writing() as database:
            values = (*_of(clip.key), clip.subset, ",".join(clip.label_ids), clip.state, clip.reason, clip.attempts)
            media = tuple(getattr(clip, name) for name in MEDIA_COLUMNS)
            row = (*values, clip.due_at, clip.owner, *media, clip.fetched_at, clip.host, clip.video_file)
            database.execute(
                f"INSERT OR REPLACE INTO clips ({COLUMNS}, bucket) VALUES ({', '.join('?' * (len(row) + 1))})",
                (*row, bucket(clip.key.video_id)),
            )

    def _holds(self, key: Key, owner: str) -> bool:
        found = self._database.execute(f"SELECT owner FROM clips WHERE {OF_CLIP}", _of(key)).fetchone()
        return found is not None and found[0] == owner

    def _note(self, key: Key, state: str, reason: str, owner: str) -> None:
        row = (self._clock(), *_of(key), state, reason, owner)
        self._database.execute("INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    # What all processes share

    def reserve_slot(self, interval_s: float) -> float:
        """Unix time of the next free turn to fetch; turns are ``interval_s`` apart over all processes."""
        with self._writing():
            slot: float = max(self._clock(), self._number("next_slot"))
            self._set("next_slot", slot + interval_s)
            return slot

    def _number(self, name: str) -> float:
        value = self._get(name, 0.0)
        if not NUMBER.fits(value):
            raise DataError(f"the setting {name!r} of {self.path} is {shown(value)}; expected {NUMBER.expected}")
        return float(value)

    def trip(self, state: str, reason: str, pause_s: Callable[[int], float]) -> Breaker:
        """Stop everybody for ``pause_s`` of the pauses in a row, this one included; a reason meanwhile adds nothing."""
        with self._writing():
            current = self.breaker()
            if current is not None:
                return current
            trips = int(self._number("trips")) + 1
            breaker = Breaker(self._clock() + pause_s(trips), state, reason, trips)
            self._set("trips", trips)
            self._set("breaker", vars(breaker))
            return breaker

    def breaker(self) -> Breaker | None:
        """Why nothing may be fetched now, or None."""
        with self._reading():
            values = self._get("breaker", None)
            if values is not None:
                check_record(values, f"the pause in {self.path}", BREAKER, DataError)
            breaker = None if values is None else Breaker(**{name: values[name] for name in BREAKER})
            return breaker if breaker is not None and breaker.until > self._clock() else None

    def close_breaker(self) -> None:
        """Forget about pauses."""
        with self._writing():
            self._set("trips", 0)
            self._set("breaker", None)

    def reset_pauses(self) -> None:
        """Let the next pause be a short one: something was fetched, and nobody is stopped."""
        if self.setting("trips", 0):
            with self._writing():
                if self.breaker() is None:
                    self._set("trips", 0)

    # What it says

    def counts(self) -> dict[tuple[str, str], int]:
        """Number of clips by subset and state."""
        with self._reading() as database:
            found = database.execute("SELECT subset, state, count(*) FROM clips GROUP BY subset, state")
            return {(subset, state): n for subset, state, n in found}

    def n_due(self) -> int:
        """Clips that are due now or later, or in work."""
        with self._reading() as database:
            return int(database.execute("SELECT count(*) FROM clips WHERE due_at IS NOT NULL").fetchone()[0])

    def clips(self, state: str | None = None, subset: str | None = None) -> Iterator[Clip]:
        """Rows in the order of ids, as they were when the first was asked for or later."""
        wanted: Mapping[str, str | None] = {"state": state, "subset": subset}
        chosen = {name: value for name, value in wanted.items() if value is not None}
        condition = " AND ".join(["(video_id, start_ms, end_ms) > (?, ?, ?)", *(f"{name} = ?" for name in chosen)])
        query = (
            f"SELECT {COLUMNS} FROM clips WHERE {condition} ORDER BY video_id, start_ms, end_ms LIMIT {ROWS_AT_ONCE}"
        )
        last: tuple[Any, ...] = ("", -1, -1)
        while True:
            with self._reading() as database:
                rows = database.execute(query, (*last, *chosen.values())).fetchall()
            yield from map(_clip, rows)
            if len(rows) < ROWS_AT_ONCE:
                return
            last = rows[-1][:3]

    def clips_of(self, video_id: str) -> list[Clip]:
        """All clips of a video."""
        with self._reading() as database:
            return [
                _clip(row) for row in database.execute(f"SELECT {COLUMNS} FROM clips WHERE video_id = ?", (video_id,))
            ]

    def recently_done(self, seconds: float) -> tuple[int, float]:
        """How many clips were done in the last seconds, and since when."""
        since = self._clock() - seconds
        with self._reading() as database:
            found = database.execute("SELECT count(*), min(at) FROM history WHERE state = 'done' AND at > ?", (since,))
            n, first = found.fetchone()
            return int(n), self._clock() - float(first or self._clock())

    def history(self) -> list[tuple[float, Key, str, str, str]]:
        """All that happened: when, to which clip, its new state, why, and by whom."""
        with self._reading() as database:
            rows = database.execute("SELECT * FROM history ORDER BY rowid").fetchall()
            return [(at, Key(*key), state, reason, owner) for at, *key, state, reason, owner in rows]


def _of(key: Key) -> tuple[str, int, int]:
    return key.video_id, key.start_ms, key.end_ms


def _of_segment(segment: Segment) -> tuple[str, int, int]:
    return segment.video_id, round(segment.start_s * 1000), round(segment.end_s * 1000)


# What SQLite may hold in each of COLUMNS; it keeps values of any type in any column.
_NUMBER = (int, float, NoneType)
ROW_TYPES = (
    *(((str,), (int,), (int,), (str,), (str,), (str,), (str,), (int,), _NUMBER, (str, NoneType))),
    *(((str, NoneType), (int, NoneType), (str, NoneType), _NUMBER, (int, NoneType), (int, NoneType))),
    *(((str, NoneType), (str, NoneType), _NUMBER, (str, NoneType), (str, NoneType))),
)


@lru_cache(maxsize=256)
def _are_types(types: tuple[type, ...]) -> bool:
    return all(found in expected for found, expected in zip(types, ROW_TYPES, strict=True))


def _clip(row: tuple[Any, ...]) -> Clip:
    if not _are_types(tuple(map(type, row))) or not (is_clip_name(row[0]) and is_clip_name(row[3])):
        raise DataError(
            f"a ledger has the row {shown(row[:5])}; expected the id of a video, times in milliseconds, and the name "
            "of a subset. Likely cause: a damaged file, or one that was made to write elsewhere. Next step: restore it"
        )
    video_id, start_ms, end_ms, subset, label_ids, *rest = row
    return Clip(Key(video_id, start_ms, end_ms), subset, tuple(label_ids.split(",")) if label_ids else (), *rest)
