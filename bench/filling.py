"""Fills databases of servers that do not run, straight in SQL: with what would take hours by requests.

Messages are copies of a real one of each room, with numbers, ids, times and words of their own.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

import msgspec
import psycopg

VOCABULARY: Final = 50_000
WORDS: Final = 6
"""Of a message, drawn by Zipf's law from a vocabulary; and with some of these, the words that are looked for:"""
COMMON: Final = {"alpha": 0.3, "beta": 0.2, "gamma": 0.001}
RARE: Final = "omega"
RARE_EVERY: Final = 50_000
"""One message in so many has the rare word."""

Row = Sequence[Any]


class Target(Protocol):
    """A database that is filled."""

    def insert(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None: ...

    def run(self, sql: str, *values: Any) -> list[Row]:
        """One statement, its parameters spelled `?`."""


class Template(msgspec.Struct, frozen=True):
    """A message as it is stored: the row's other columns, and what is around the body."""

    room_nid: int
    columns: dict[str, Any]
    before: bytes
    after: bytes


@contextmanager
def opened(url: str) -> Iterator[Target]:
    """The database of a server that does not run; all that is done to it is one transaction."""
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(Path(url.removeprefix("sqlite:")))) as connection:
            connection.execute("PRAGMA cache_size = -400000")
            connection.execute("PRAGMA synchronous = OFF")
            yield _Sqlite(connection)
            connection.commit()
            connection.execute("ANALYZE")
    else:
        with psycopg.connect(url) as connection_:
            yield _Postgres(connection_)
        with psycopg.connect(url, autocommit=True) as connection_:
            connection_.execute("VACUUM ANALYZE")


class _Sqlite:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def insert(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        marks = ", ".join("?" * len(columns))
        self._connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)

    def run(self, sql: str, *values: Any) -> list[Row]:
        return self._connection.execute(sql, values).fetchall()


class _Postgres:
    def __init__(self, connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
        self._connection = connection

    def insert(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        with (
            self._connection.cursor() as cursor,
            cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row(row)

    def run(self, sql: str, *values: Any) -> list[Row]:
        cursor = self._connection.execute(sql.replace("?", "%s").encode(), values)
        return list(cursor.fetchall()) if cursor.description else []


def fill_messages(target: Target, shares: Sequence[tuple[str, int]]) -> None:
    """Put so many messages into each of these rooms, which have one already; their times are mixed."""
    templates = [_template(target, room_id) for room_id, _ in shares]
    first = _newest(target) + 1
    order = [number for number, (_, count) in enumerate(shares) for _ in range(count)]
    random = Random(1)
    random.shuffle(order)
    messages: list[list[int]] = [[] for _ in shares]
    for nid, number in enumerate(order, first):
        messages[number].append(nid)
    texts = dict(zip(range(first, first + len(order)), _texts(random, len(order)), strict=True))
    columns = ("event_nid", "event_id", "room_order", "origin_server_ts", "json", *templates[0].columns)
    target.insert("events", columns, _events(templates, messages, texts))
    target.insert("message_words", ("room_nid", "word", "event_nid"), _words(templates, messages, texts))
    for template, nids in zip(templates, messages, strict=True):
        if nids:
            sql = "UPDATE rooms SET newest_position = ?, bump_position = ? WHERE room_nid = ?"
            target.run(sql, nids[-1], nids[-1], template.room_nid)
    _settle(target, first + len(order))


def fill_users(target: Target, room_id: str, count: int) -> None:
    """Put so many users of other servers into a public room, and into the directory."""
    room_nid, member_nid = target.run(
        "SELECT r.room_nid, e.event_nid FROM rooms r JOIN events e ON e.room_nid = r.room_nid"
        " WHERE r.room_id = ? AND e.type = 'm.room.member' ORDER BY e.event_nid LIMIT 1",
        room_id,
    )[0]
    first = int(target.run("SELECT MAX(user_nid) FROM users")[0][0]) + 1
    server_nid = int(target.run("SELECT MAX(server_nid) FROM servers")[0][0]) + 1
    nids = range(first, first + count)
    target.run("INSERT INTO servers (server_nid, server_name) VALUES (?, 'elsewhere')", server_nid)
    random = Random(2)
    names = [(f"{_name(random)}{number}", f"{_name(random)} {_name(random)}") for number in range(count)]
    users = [(nid, f"@{local}:elsewhere", server_nid, 0) for nid, (local, _) in zip(nids, names, strict=True)]
    target.insert("users", ("user_nid", "user_id", "server_nid", "is_local"), users)
    shown = [(nid, name) for nid, (_, name) in zip(nids, names, strict=True)]
    target.insert("user_directory", ("user_nid", "display_name"), shown)
    words = {
        (word, nid)
        for nid, (local, name) in zip(nids, names, strict=True)
        for word in (f"{local}:elsewhere", local, *name.split())
    }
    target.insert("user_words", ("word", "user_nid"), sorted(words))
    columns = ("room_nid", "user_nid", "membership", "event_nid", "position", "is_local")
    target.insert("memberships", columns, ((room_nid, nid, "join", member_nid, 1, 0) for nid in nids))
    target.run("UPDATE rooms SET joined_count = joined_count + ? WHERE room_nid = ?", count, room_nid)


def _template(target: Target, room_id: str) -> Template:
    columns = ("status", "type", "sender_nid", "state_root", "depth", "is_local", "contains_url")
    room_nid, json, *values = target.run(
        f"SELECT e.room_nid, e.json, e.{', e.'.join(columns)} FROM events e"
        " JOIN rooms r ON r.room_nid = e.room_nid WHERE r.room_id = ? AND e.type = 'm.room.message'",
        room_id,
    )[0]
    before, mark, after = bytes(json).partition(b'"body":"')
    end = after.index(b'"')
    others = dict(zip(columns, values, strict=True)) | {"room_nid": room_nid}
    return Template(room_nid, others, before + mark, after[end:])


def _texts(random: Random, count: int) -> Iterator[str]:
    weights = list(accumulate(1 / rank for rank in range(1, VOCABULARY + 1)))
    vocabulary = [f"w{rank}" for rank in range(VOCABULARY)]
    for number in range(count):
        words = random.choices(vocabulary, cum_weights=weights, k=WORDS)
        words += [word for word, share in COMMON.items() if random.random() < share]
        if number % RARE_EVERY == RARE_EVERY // 2:
            words.append(RARE)
        yield " ".join(words)


def _events(
    templates: Sequence[Template], messages: Sequence[Sequence[int]], texts: dict[int, str]
) -> Iterator[Row]:
    for template, nids in zip(templates, messages, strict=True):
        others = tuple(template.columns.values())
        for nid in nids:
            event_id = "$" + sha256(str(nid).encode()).hexdigest()[:43]
            json = template.before + texts[nid].encode() + template.after
            yield (nid, event_id, nid << 20, 1_700_000_000_000 + nid, json, *others)


def _words(
    templates: Sequence[Template], messages: Sequence[Sequence[int]], texts: dict[int, str]
) -> Iterator[Row]:
    """In the order of the index."""
    for template, nids in zip(templates, messages, strict=True):
        for word, event_nid in sorted({(word, nid) for nid in nids for word in texts[nid].split()}):
            yield (template.room_nid, word, event_nid)


def _newest(target: Target) -> int:
    return int(target.run("SELECT MAX(event_nid) FROM events")[0][0]) + 10_000


def _settle(target: Target, position: int) -> None:
    """Everything up to a position was given out, and those who follow have seen it."""
    target.run("UPDATE followers SET position = ?", position)
    if isinstance(target, _Postgres):
        target.run("SELECT setval('positions', ?)", position)
    else:
        target.run("UPDATE newest_position SET position = ?", position)


def _name(random: Random) -> str:
    syllables = (
        "an",
        "be",
        "car",
        "do",
        "el",
        "fi",
        "ga",
        "ho",
        "il",
        "jo",
        "ka",
        "li",
        "ma",
        "no",
        "ri",
        "sa",
    )
    return "".join(random.choices(syllables, k=3))
