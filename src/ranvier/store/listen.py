"""Hears on PostgreSQL what other processes commit, and watches until held-up positions are settled; hears also of
later versions that change the schema."""

import contextlib
import logging
import select
import socket
import threading
from typing import Final

import psycopg

from ranvier.store.database import Hint, Kind, SchemaTooNew, Unavailable
from ranvier.store.migrate import APPLIED
from ranvier.store.migrate_postgres import SCHEMA_CHANNEL
from ranvier.store.postgres import CHANNEL, Link, decode_payload, marks_of, observe_with
from ranvier.store.schema_guard import SchemaGuard
from ranvier.store.telling import Telling

log = logging.getLogger(__name__)

RECHECK_S: Final = 0.005
"""While a position waits for an open transaction."""

IDLE_S: Final = 1.0
"""Without notifications, until the sequence is looked at: a commit without a hint moves positions too."""


class Listener:
    """One thread and one connection."""

    def __init__(self, url: str, telling: Telling, name: str, guard: SchemaGuard) -> None:
        self._link = Link(url)
        self._marks = marks_of(name)
        self._listen = f"LISTEN {CHANNEL}; LISTEN {self._marks}; LISTEN {SCHEMA_CHANNEL}".encode()
        self._link.run(self._listen)
        self._telling = telling
        self._name = name
        self._guard = guard
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="store-listener", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look again now: something waits to be settled. From any thread; never blocks."""
        # A full buffer means that it is awake, or about to be.
        with contextlib.suppress(BlockingIOError):
            self._wake.send(b"\0")

    def close(self) -> None:
        self._closing = True
        self.wake()
        self._thread.join()
        self._link.conn.close()
        self._woken.close()
        self._wake.close()

    def _loop(self) -> None:
        while not self._closing:
            try:
                if self._link.is_lost:
                    self._link.renew()
                    self._link.run(self._listen)
                    self._telling.lose_marks()
                    self._tell_gap()
                    self._check_schema()
                self._listen_once()
            except (psycopg.Error, Unavailable) as error:
                log.warning("not listening to other processes: %s", error)
                self._pause(IDLE_S)

    def _listen_once(self) -> None:
        conn = self._link.conn
        heard = list(conn.notifies(timeout=0))
        if not heard:
            waiting = self._telling.is_waiting
            if not self._pause(RECHECK_S if waiting else IDLE_S, conn.fileno()) and not waiting:
                self._look()
            heard = list(conn.notifies(timeout=0))
        for notification in heard:
            if notification.channel == self._marks:
                self._telling.heard(int(notification.payload))
                continue
            if notification.channel == SCHEMA_CHANNEL:
                self._check_schema()
                continue
            name, first, hints = decode_payload(notification.payload)
            if name != self._name:
                self._telling.hold(hints, first)
        if self._telling.is_waiting:
            self._observe()

    def _look(self) -> None:
        """After silence: observe if positions were taken since, which costs a transaction id."""
        row = self._link.control.execute("SELECT last_value FROM positions").fetchone()
        if row is not None and row[0] > self._telling.position:
            self._observe()

    def _observe(self) -> None:
        mark = self._telling.next_mark()
        self._telling.observed(mark, self._link.observe(observe_with(self._name, mark)))

    def _check_schema(self) -> None:
        rows = self._link.conn.execute(APPLIED).fetchall()
        try:
            self._guard.check(len(rows), lambda: rows)
        except SchemaTooNew as error:
            self._telling.end(str(error))

    def _tell_gap(self) -> None:
        """What was sent while nobody listened is lost."""
        row = self._link.control.execute("SELECT last_value FROM positions").fetchone()
        last = 0 if row is None else int(row[0])
        self._telling.hold([Hint(Kind.GAP, 0, last)], last)
        self._observe()

    def _pause(self, seconds: float, *others: int) -> bool:
        """Wait until something can be read, or `close`; whether that was before the time was over."""
        ready, _, _ = select.select([self._woken.fileno(), *others], [], [], seconds)
        if self._woken.fileno() in ready:
            self._woken.recv(4_096)
        return bool(ready)
