"""Sessions: from a request's token to what is asked for, and what all sessions of a device have confirmed."""

from typing import Final

import msgspec
import orjson

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import InvalidParam, MatrixError
from ranvier.historical.sync_v3.port import Source, Viewer
from ranvier.historical.sync_v3.requests import Sticky, Wanted, read_request
from ranvier.historical.sync_v3.tokens import Positions, Token
from ranvier.io.clock import Clock
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables import sync_v3_sessions as table
from ranvier.store.tables.sync_v3_sessions import Session
from ranvier.store.tables.to_device import delete_acknowledged

DAY_MS: Final = 24 * 60 * 60 * 1000

IDLE_MS: Final = 7 * DAY_MS
"""A session that is not used for so long is forgotten: else it would keep its device's messages for ever."""

MAX_SESSIONS: Final = 10
"""Of a device; one more, and the longest unused is forgotten."""

SWEEP_S: Final = 3600.0
SWEEP_BATCH: Final = 1000


class UnknownSyncSession(MatrixError):
    """The session is not of this device, or expired. The client begins a new one."""

    errcode = "M_UNKNOWN_SYNC_SESSION"

    def __init__(self) -> None:
        super().__init__("Session unknown or expired")


class Opened(msgspec.Struct, frozen=True):
    """A session as one request uses it."""

    session_id: int
    filter_id: int | None
    since: Positions
    wanted: Wanted
    is_new: bool


def begin(
    txn: WriteTxn, source: Source, viewer: Viewer, token: Token | None, body: JsonObject, now_ms: int
) -> Opened:
    """Find the session or make one, remember what it asks for, and delete what all sessions have got.

    Raises: UnknownSyncSession; InvalidParam, BadJsonValue, MissingParam, BadToken. Then nothing is changed.
    """
    live = _live(txn, viewer, now_ms)
    if token is None:
        wanted = read_request({}, body)
        session_id = table.insert_session(txn, viewer.device, now_ms)
        filter_id = table.put_filter(txn, session_id, _encode(wanted.sticky)) if wanted.sticky else None
        _forget_surplus(txn, live)
        return Opened(session_id, filter_id, Positions(), wanted, True)
    session = next((one for one in live if one.session_id == token.session), None)
    if session is None or session.is_classic:
        raise UnknownSyncSession
    stored = _load(txn, token)
    wanted = read_request(stored, body)
    filter_id = token.filter
    if wanted.sticky != stored:
        filter_id = table.put_filter(txn, session.session_id, _encode(wanted.sticky))
    at = token.positions
    table.confirm(txn, session.session_id, at.events, at.to_device, now_ms)
    others = [one.to_device for one in live if one is not session]
    if got := min([at.to_device, *others]):
        source.delete_to_device(txn, viewer, got)
    return Opened(session.session_id, filter_id, at, wanted, False)


def _live(txn: WriteTxn, viewer: Viewer, now_ms: int) -> list[Session]:
    """The device's sessions. Effects: those that nobody used for long are deleted."""
    sessions = table.list_sessions(txn, viewer.device)
    idle = [one.session_id for one in sessions if one.used_ms < now_ms - IDLE_MS]
    if idle:
        table.delete_sessions(txn, idle)
    return [one for one in sessions if one.session_id not in idle]


def _forget_surplus(txn: WriteTxn, live: list[Session]) -> None:
    ours = [one.session_id for one in live if not one.is_classic]
    surplus = ours[: max(0, len(ours) + 1 - MAX_SESSIONS)]
    if surplus:
        table.delete_sessions(txn, surplus)


def _load(txn: WriteTxn, token: Token) -> Sticky:
    if token.filter is None:
        return {}
    stored = table.find_filter(txn, token.session, token.filter)
    if stored is None:
        raise InvalidParam("Failed to load filters from sync token.")
    sticky: Sticky = orjson.loads(stored)
    return sticky


def _encode(sticky: Sticky) -> bytes:
    return orjson.dumps(sticky, option=orjson.OPT_SORT_KEYS)


def device_key(user_nid: int, device_nid: int | None) -> str:
    """The name of a homeserver's device among sessions."""
    return f"user {user_nid}" if device_nid is None else f"device {device_nid}"


class ClassicSync:
    """The device's classic sync, counted as one more of its sessions."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def acknowledge(self, txn: WriteTxn, device_nid: int, up_to: int) -> int:
        """Delete the messages up to a position that classic sync has got, as far as every session has; how
        many. For `services.sync.clients.Acknowledged`."""
        now_ms = self._clock.now_ms()
        device = device_key(0, device_nid)
        table.confirm_classic(txn, device, up_to, now_ms)
        confirmed = [
            one.to_device for one in table.list_sessions(txn, device) if one.used_ms >= now_ms - IDLE_MS
        ]
        return delete_acknowledged(txn, device_nid, min(confirmed))


class SessionSweeper:
    """A worker that forgets sessions nobody uses."""

    name = "sync v3 sessions"

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def run(self) -> None:
        while True:
            before_ms = self._clock.now_ms() - IDLE_MS
            while await self._db.write(table.delete_unused_sessions, before_ms, SWEEP_BATCH):
                pass
            await self._clock.sleep(SWEEP_S)
