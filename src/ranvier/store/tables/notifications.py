"""Unread counts, and which events notified whom: what push rules made of events, and up to where users have read.

Tables: notifying_events, counted_rooms, quiet_rooms, user_notifications, read_marks. Owner: services.push.
Growth: one row for an event that notifies; one for each user and room that an event means something else to; one
for each time that a user joins or leaves; one for each user, room and thread that was read; one for each room that a
user mutes.
Index -> query: the primary keys -> everything, by room and event or by user and room; in_threads -> counts of
threads; user_notifications_by_event -> what a redacted event meant.

**Shared counting.** Most members of a room have the default rules, and nearly always an event means the same to
all of them. So an event that notifies by the default rules is *one* row of notifying_events, which carries the
`main_ordinal`: how many notifying events the main timeline has had up to there. How many of them a user has not
read is a difference of two ordinals: the room's newest, and that of where the user has read to.

**Whom it counts for.** counted_rooms tells from which event on a user counts them: those after joining. Who
leaves counts nothing any more, and who comes back begins anew.

**Who mutes a room**, or is told of mentions alone, counts none of its events: else each would cost a row for each of
those users. While a room is quiet to a user (quiet_rooms) there is no row of counted_rooms, and the user has a row of
user_notifications for whatever notifies all the same. When a room becomes quiet, what is unread until then is kept as
such rows. When it is quiet no more, the user counts from there on, as who joins.

**Where one user differs** (a mention, other rules), user_notifications has a row for the event and the user.
`correction` is what it adds to the shared count: 1 where only this user is notified, -1 where only this user is
not, else 0. So for each event e and user u who has not read it:

    notified(u, e) = (e is in notifying_events and u counts it) + correction(u, e)

is 1 or 0, and the count is its sum. `is_highlight` is kept there alone: no default rule highlights for everybody
without that everybody gets a row each.

**Threads.** A row with a thread_nid other than 0 does not move the ordinal; threads are counted row by row, and
only those events that came after the user read *everything*. An event of the main timeline is read when it is
covered by the mark of everything or that of the main timeline; one of a thread, by everything's or its thread's.

Marks never go back.

Spec: client-server API, "Receiving notifications", "Threaded read receipts".
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.store.database import Kind, ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches

EVERYTHING: Final = -1
"""As thread_nid of a mark: the whole room."""
MAIN_TIMELINE: Final = 0
"""As thread_nid: what is in no thread. Else it is the event_nid of the thread's root."""

NOTHING: Final = "[]"
"""As actions: does not notify."""


class UserOutcome(msgspec.Struct, frozen=True):
    """What an event means to one user, where that is not what it means to all."""

    notify: bool
    highlight: bool
    actions: str  # JSON, an array


class NotifyingEvent(msgspec.Struct, frozen=True):
    """What an event means to the members of its room."""

    event_nid: int
    thread_nid: int
    actions: str | None  # of whoever counts the room's events and is not in `others`; None: does not notify
    others: Mapping[int, UserOutcome]  # by user_nid; those to whom the room is quiet: if it notifies


class Counts(msgspec.Struct, frozen=True):
    """What is unread."""

    notify: int = 0
    highlight: int = 0


class RoomCounts(msgspec.Struct, frozen=True):
    """What a user has not read of a room."""

    main: Counts
    threads: Mapping[int, Counts]  # by the root's event_nid, only those with anything unread

    @property
    def total(self) -> Counts:
        every = (self.main, *self.threads.values())
        return Counts(sum(one.notify for one in every), sum(one.highlight for one in every))


NOTHING_UNREAD: Final = RoomCounts(Counts(), {})


class Notified(msgspec.Struct, frozen=True):
    """An event that notified a user."""

    room_nid: int
    event_nid: int
    thread_nid: int
    actions: str  # JSON, an array
    is_read: bool


MAX_KEPT: Final = 10_000
"""Unread events of a room that becomes quiet, the newest: no count goes beyond that."""

MAX_RENUMBERED: Final = 10_000
"""Events behind a redacted one whose ordinals are set anew."""

_WINDOWS: Final = (10_000, 1_000_000, 2**62)
"""Positions back to which notifications are looked for, first the nearest."""

_ORDINAL_AT: Final = """
    SELECT main_ordinal FROM notifying_events
    WHERE room_nid = :room_nid AND event_nid <= :event_nid ORDER BY event_nid DESC LIMIT 1
"""
_INSERT_EVENT: Final = """
    INSERT INTO notifying_events (room_nid, event_nid, thread_nid, main_ordinal, actions)
    VALUES (:room_nid, :event_nid, :thread_nid, :main_ordinal, :actions)
"""
_INSERT_USER: Final = """
    INSERT INTO user_notifications (user_nid, room_nid, event_nid, thread_nid, correction, is_highlight, actions)
    VALUES (:user_nid, :room_nid, :event_nid, :thread_nid, :correction, :is_highlight, :actions)
"""
_THREAD_OF: Final = """
    SELECT thread_nid FROM notifying_events WHERE room_nid = :room_nid AND event_nid = :event_nid
"""
_RENUMBER: Final = """
    UPDATE notifying_events SET main_ordinal = main_ordinal - 1
    WHERE room_nid = :room_nid AND event_nid > :event_nid
"""
_DELETE_EVENT: Final = "DELETE FROM notifying_events WHERE room_nid = :room_nid AND event_nid = :event_nid"
_DELETE_USERS: Final = "DELETE FROM user_notifications WHERE room_nid = :room_nid AND event_nid = :event_nid"
_STOP: Final = "DELETE FROM counted_rooms WHERE user_nid = :user_nid AND room_nid = :room_nid"
_IS_QUIET: Final = """EXISTS (
    SELECT 1 FROM quiet_rooms q JOIN rooms r ON r.room_nid = {room_nid}
    WHERE q.user_nid = :user_nid AND q.room_id IN (r.room_id, '')
)"""
_START: Final = f"""
    INSERT INTO counted_rooms (user_nid, room_nid, after_nid)
    SELECT CAST(:user_nid AS BIGINT), CAST(:room_nid AS BIGINT), CAST(:after_nid AS BIGINT)
    WHERE NOT {_IS_QUIET.format(room_nid=":room_nid")}
"""
_START_AGAIN: Final = f"""
    INSERT INTO counted_rooms (user_nid, room_nid, after_nid)
    SELECT m.user_nid, m.room_nid, CAST(:after_nid AS BIGINT) FROM memberships m
    WHERE m.user_nid = :user_nid AND m.membership = 'join' AND NOT {_IS_QUIET.format(room_nid="m.room_nid")}
    ON CONFLICT (user_nid, room_nid) DO NOTHING
"""  # noqa: S608
_COUNTED: Final = """
    SELECT user_nid, after_nid FROM counted_rooms WHERE room_nid = :room_nid AND user_nid IN (:user_nids[])
"""
_INSERT_QUIET: Final = """
    INSERT INTO quiet_rooms (user_nid, room_id) VALUES (:user_nid, :room_id)
    ON CONFLICT (user_nid, room_id) DO NOTHING
"""
_DELETE_QUIET: Final = "DELETE FROM quiet_rooms WHERE user_nid = :user_nid AND room_id = :room_id"
_COUNTED_AND_QUIET: Final = f"""
    SELECT o.room_nid, o.after_nid FROM counted_rooms o
    WHERE o.user_nid = :user_nid AND {_IS_QUIET.format(room_nid="o.room_nid")}
"""  # noqa: S608
_MARK: Final = """
    INSERT INTO read_marks (user_nid, room_nid, thread_nid, read_nid)
    VALUES (:user_nid, :room_nid, :thread_nid, :read_nid)
    ON CONFLICT (user_nid, room_nid, thread_nid) DO UPDATE SET read_nid = excluded.read_nid
    WHERE read_marks.read_nid < excluded.read_nid
"""
# Everything that is wanted of the main timeline: per user and room, the newest ordinal and that of what was read.
_MAIN: Final = """
    SELECT o.user_nid, o.room_nid, COALESCE((
        SELECT n.main_ordinal FROM notifying_events n WHERE n.room_nid = o.room_nid
        ORDER BY n.event_nid DESC LIMIT 1
    ), 0) - COALESCE((
        SELECT n.main_ordinal FROM notifying_events n
        WHERE n.room_nid = o.room_nid AND n.event_nid <= {greatest}(o.after_nid, COALESCE((
            SELECT MAX(m.read_nid) FROM read_marks m
            WHERE m.user_nid = o.user_nid AND m.room_nid = o.room_nid AND m.thread_nid IN (-1, 0)
        ), 0)) ORDER BY n.event_nid DESC LIMIT 1
    ), 0)
    FROM counted_rooms o WHERE o.user_nid IN (:user_nids[]) AND o.room_nid IN (:room_nids[])
"""
_UNREAD: Final = """
    NOT EXISTS (
        SELECT 1 FROM read_marks m WHERE m.user_nid = {user} AND m.room_nid = {event}.room_nid
            AND m.thread_nid IN (-1, {event}.thread_nid) AND m.read_nid >= {event}.event_nid
    )
"""
_CORRECT: Final = """
    UPDATE user_notifications SET correction = correction + 1
    WHERE user_nid = :user_nid AND room_nid = :room_nid AND event_nid > :after_nid AND EXISTS (
        SELECT 1 FROM notifying_events n
        WHERE n.room_nid = user_notifications.room_nid AND n.event_nid = user_notifications.event_nid
    )
"""
_DROP_MEANINGLESS: Final = """
    DELETE FROM user_notifications
    WHERE user_nid = :user_nid AND room_nid = :room_nid AND correction = 0 AND actions = '[]'
"""
_KEEP_UNREAD: Final = f"""
    INSERT INTO user_notifications (user_nid, room_nid, event_nid, thread_nid, correction, is_highlight, actions)
    SELECT CAST(:user_nid AS BIGINT), n.room_nid, n.event_nid, n.thread_nid, 1, 0, n.actions
    FROM notifying_events n
    WHERE n.room_nid = :room_nid AND n.event_nid > :after_nid
        AND {_UNREAD.format(user=":user_nid", event="n")}
        AND NOT EXISTS (
            SELECT 1 FROM user_notifications u
            WHERE u.user_nid = :user_nid AND u.room_nid = n.room_nid AND u.event_nid = n.event_nid
        )
    ORDER BY n.event_nid DESC LIMIT :limit
"""  # noqa: S608
_READ_UP_TO: Final = """
    COALESCE((
        SELECT m.read_nid FROM read_marks m
        WHERE m.user_nid = {user}.user_nid AND m.room_nid = {user}.room_nid AND m.thread_nid = -1
    ), 0)
"""
_THREADS: Final = f"""
    SELECT o.user_nid, o.room_nid, n.thread_nid, COUNT(*)
    FROM counted_rooms o JOIN notifying_events n ON n.room_nid = o.room_nid AND n.thread_nid <> 0
        AND n.event_nid > {{greatest}}(o.after_nid, {_READ_UP_TO.format(user="o")})
    WHERE o.user_nid IN (:user_nids[]) AND o.room_nid IN (:room_nids[])
        AND {_UNREAD.format(user="o.user_nid", event="n")}
    GROUP BY o.user_nid, o.room_nid, n.thread_nid
"""  # noqa: S608
_DIFFERENCES: Final = f"""
    SELECT u.user_nid, u.room_nid, u.thread_nid, CAST(SUM(u.correction) AS BIGINT), CAST(SUM(u.is_highlight) AS BIGINT)
    FROM user_notifications u
    WHERE u.user_nid IN (:user_nids[]) AND u.room_nid IN (:room_nids[])
        AND u.event_nid > {_READ_UP_TO.format(user="u")} AND {_UNREAD.format(user="u.user_nid", event="u")}
    GROUP BY u.user_nid, u.room_nid, u.thread_nid
"""  # noqa: S608
_ROOMS_OF: Final = """
    SELECT room_nid FROM counted_rooms WHERE user_nid = :user_nid
    UNION SELECT room_nid FROM user_notifications WHERE user_nid = :user_nid
"""
_DROP_DIFFERENCES: Final = (
    "DELETE FROM user_notifications WHERE user_nid = :user_nid AND room_nid = :room_nid"
)
_NOTIFIED: Final = f"""
    SELECT x.room_nid, x.event_nid, x.thread_nid, x.actions, CASE WHEN
        {_UNREAD.format(user=":user_nid", event="x")} THEN 0 ELSE 1 END
    FROM (
        SELECT n.room_nid, n.event_nid, n.thread_nid, n.actions, 0 AS is_highlight
        FROM counted_rooms o JOIN notifying_events n ON n.room_nid = o.room_nid
            AND n.event_nid > o.after_nid AND n.event_nid > :above AND n.event_nid < :below
        WHERE o.user_nid = :user_nid AND NOT EXISTS (
            SELECT 1 FROM user_notifications u WHERE u.user_nid = :user_nid AND u.room_nid = n.room_nid
                AND u.event_nid = n.event_nid
        )
        UNION ALL
        SELECT u.room_nid, u.event_nid, u.thread_nid, u.actions, u.is_highlight FROM user_notifications u
        WHERE u.user_nid = :user_nid AND u.event_nid > :above AND u.event_nid < :below AND u.actions <> '[]'
    ) x JOIN events e ON e.event_nid = x.event_nid AND e.sender_nid <> :user_nid
    WHERE x.is_highlight >= :least_highlight
"""  # noqa: S608
_NOTIFIED_NEWEST_FIRST: Final = _NOTIFIED + "ORDER BY x.event_nid DESC LIMIT :limit"
_NOTIFIED_OLDEST_FIRST: Final = _NOTIFIED + "ORDER BY x.event_nid LIMIT :limit"


def start_counting(txn: WriteTxn, room_nid: int, user_nid: int, after_nid: int) -> None:
    """A local user joined by the event `after_nid`: what comes after it counts, unless the room is quiet."""
    stop_counting(txn, room_nid, user_nid)
    txn.execute(_START, user_nid=user_nid, room_nid=room_nid, after_nid=after_nid)


def stop_counting(txn: WriteTxn, room_nid: int, user_nid: int) -> None:
    """A local user left: nothing of the room is unread any more."""
    txn.execute(_STOP, user_nid=user_nid, room_nid=room_nid)
    txn.execute(_DROP_DIFFERENCES, user_nid=user_nid, room_nid=room_nid)


def change_quiet_rooms(
    txn: WriteTxn, user_nid: int, before: Collection[str], after: Collection[str], position: int
) -> None:
    """The user's rules make other rooms (ids, or `core.push.ruleset.ALL_ROOMS`) quiet from a position on.

    Cost: a statement for each room that differs, and a few for each that becomes quiet and is counted.
    """
    named = {"before": set(before) - set(after), "after": set(after) - set(before)}
    for sql, room_ids in ((_DELETE_QUIET, named["before"]), (_INSERT_QUIET, named["after"])):
        txn.execute_many(sql, [{"user_nid": user_nid, "room_id": room_id} for room_id in sorted(room_ids)])
    if named["after"]:
        for room_nid, after_nid in txn.all(_COUNTED_AND_QUIET, user_nid=user_nid):
            _keep_unread(txn, user_nid, room_nid, after_nid)
            txn.execute(_STOP, user_nid=user_nid, room_nid=room_nid)
    if named["before"]:
        txn.execute(_START_AGAIN, user_nid=user_nid, after_nid=position)


def _keep_unread(txn: WriteTxn, user_nid: int, room_nid: int, after_nid: int) -> None:
    """What a user counts of a room, in rows of its own."""
    place = {"user_nid": user_nid, "room_nid": room_nid}
    txn.execute(_CORRECT, **place, after_nid=after_nid)
    txn.execute(_KEEP_UNREAD, **place, after_nid=after_nid, limit=MAX_KEPT)
    txn.execute(_DROP_MEANINGLESS, **place)


def insert_notifications(txn: WriteTxn, room_nid: int, events: Sequence[NotifyingEvent]) -> None:
    """Store what events mean, in the order of their numbers, in the transaction that appends them.

    Cost: 2 statements, 2 more where the events mean something else to some.
    """
    if any(event.actions is not None for event in events):
        ordinal = _ordinal_at(txn, room_nid, events[0].event_nid)
        rows: list[dict[str, object]] = []
        for event in events:
            if event.actions is not None:
                ordinal += event.thread_nid == MAIN_TIMELINE
                rows.append(
                    {
                        "room_nid": room_nid,
                        "event_nid": event.event_nid,
                        "thread_nid": event.thread_nid,
                        "main_ordinal": ordinal,
                        "actions": event.actions,
                    }
                )
        txn.execute_many(_INSERT_EVENT, rows)
    differences = _list_differences(txn, room_nid, events)
    if differences:
        txn.execute_many(_INSERT_USER, differences)


def _list_differences(
    txn: ReadTxn, room_nid: int, events: Sequence[NotifyingEvent]
) -> list[dict[str, object]]:
    """The rows of those to whom events mean something else than what they count."""
    users = {user_nid for event in events for user_nid in event.others}
    since = {
        user_nid: after_nid
        for batch in in_batches(list(users))
        for user_nid, after_nid in txn.all(_COUNTED, room_nid=room_nid, user_nids=batch)
    }
    rows: list[dict[str, object]] = []
    for event in events:
        for user_nid, outcome in event.others.items():
            is_counted = event.actions is not None and event.event_nid > since.get(user_nid, event.event_nid)
            if outcome.notify or outcome.highlight or is_counted:
                rows.append(
                    {
                        "user_nid": user_nid,
                        "room_nid": room_nid,
                        "event_nid": event.event_nid,
                        "thread_nid": event.thread_nid,
                        "correction": outcome.notify - is_counted,
                        "is_highlight": int(outcome.highlight),
                        "actions": outcome.actions if outcome.notify else NOTHING,
                    }
                )
    return rows


def retract_notification(txn: WriteTxn, room_nid: int, event_nid: int) -> None:
    """The event was redacted: it notifies nobody any more.

    Where that would renumber more than MAX_RENUMBERED events, it goes on counting for whoever has not read those.
    """
    thread_nid = txn.value(_THREAD_OF, room_nid=room_nid, event_nid=event_nid)
    if thread_nid == MAIN_TIMELINE:
        newest = _ordinal_at(txn, room_nid, txn.position)
        if newest - _ordinal_at(txn, room_nid, event_nid) > MAX_RENUMBERED:
            return
        txn.execute(_RENUMBER, room_nid=room_nid, event_nid=event_nid)
    if thread_nid is not None:
        txn.execute(_DELETE_EVENT, room_nid=room_nid, event_nid=event_nid)
    txn.execute(_DELETE_USERS, room_nid=room_nid, event_nid=event_nid)


def mark_read(txn: WriteTxn, room_nid: int, user_nid: int, thread_nid: int, read_nid: int) -> None:
    """The user has read up to an event: EVERYTHING, the MAIN_TIMELINE or a thread. Never goes back.

    Effects: a USER hint if it went forward: the user's counts may be others now.
    """
    if txn.execute(_MARK, user_nid=user_nid, room_nid=room_nid, thread_nid=thread_nid, read_nid=read_nid):
        txn.hint(Kind.USER, user_nid)


def mark_sent(txn: WriteTxn, room_nid: int, sent: Mapping[tuple[int, int], int]) -> None:
    """Users sent events, and have read up to there: (user_nid, thread_nid) -> event_nid. Tells nobody more than the
    events do."""
    txn.execute_many(
        _MARK,
        [
            {"user_nid": user_nid, "room_nid": room_nid, "thread_nid": thread_nid, "read_nid": event_nid}
            for (user_nid, thread_nid), event_nid in sent.items()
        ],
    )


def list_unread(
    txn: ReadTxn, user_nids: Collection[int], room_nids: Collection[int]
) -> dict[tuple[int, int], RoomCounts]:
    """(user_nid, room_nid) -> what is unread, of these users in these rooms. Who has read all is left out.

    Cost: 3 queries for each batch of users and rooms, which read the rows of these users and what is unread in
    threads.
    """
    totals: dict[tuple[int, int, int], list[int]] = {}

    def add(user_nid: int, room_nid: int, thread_nid: int, notify: int, highlight: int) -> None:
        counts = totals.setdefault((user_nid, room_nid, thread_nid), [0, 0])
        counts[0] += notify
        counts[1] += highlight

    for users in in_batches(list(user_nids)):
        for rooms in in_batches(list(room_nids)):
            for user_nid, room_nid, count in txn.all(_MAIN, user_nids=users, room_nids=rooms):
                add(user_nid, room_nid, MAIN_TIMELINE, count, 0)
            for user_nid, room_nid, thread_nid, count in txn.all(_THREADS, user_nids=users, room_nids=rooms):
                add(user_nid, room_nid, thread_nid, count, 0)
            for row in txn.all(_DIFFERENCES, user_nids=users, room_nids=rooms):
                add(*row)
    found: dict[tuple[int, int], RoomCounts] = {}
    for (user_nid, room_nid, thread_nid), (notify, highlight) in totals.items():
        if notify or highlight:
            before = found.get((user_nid, room_nid), NOTHING_UNREAD)
            counts = Counts(notify, highlight)
            found[user_nid, room_nid] = (
                RoomCounts(counts, before.threads)
                if thread_nid == MAIN_TIMELINE
                else RoomCounts(before.main, {**before.threads, thread_nid: counts})
            )
    return found


def count_unread(txn: ReadTxn, user_nid: int) -> int:
    """How many events are unread and notified the user, over all rooms: the badge of a device."""
    room_nids = [room_nid for (room_nid,) in txn.all(_ROOMS_OF, user_nid=user_nid)]
    return sum(counts.total.notify for counts in list_unread(txn, (user_nid,), room_nids).values())


def list_notified(
    txn: ReadTxn, user_nid: int, *, below: int, limit: int, only_highlights: bool = False
) -> list[Notified]:
    """Events that notified the user, newest first, with numbers below `below`.

    Cost: looks at ever more of the past until `limit` are found, so what was long ago costs only who asks for it.
    """
    below = min(below, txn.position + 1)
    for width in _WINDOWS:
        above = max(0, below - width)
        found = _notified(txn, _NOTIFIED_NEWEST_FIRST, user_nid, above, below, limit, only_highlights)
        if len(found) == limit or not above:
            break
    return found


def list_to_push(txn: ReadTxn, user_nid: int, above: int, up_to: int, limit: int) -> list[Notified]:
    """Events that notified the user, oldest first, with numbers in (above, up_to]."""
    return _notified(txn, _NOTIFIED_OLDEST_FIRST, user_nid, above, up_to + 1, limit, False)


def _notified(
    txn: ReadTxn, sql: str, user_nid: int, above: int, below: int, limit: int, only_highlights: bool
) -> list[Notified]:
    return [
        Notified(room_nid, event_nid, thread_nid, actions, is_read == 1)
        for room_nid, event_nid, thread_nid, actions, is_read in txn.all(
            sql,
            user_nid=user_nid,
            above=above,
            below=below,
            limit=limit,
            least_highlight=int(only_highlights),
        )
    ]


def _ordinal_at(txn: ReadTxn, room_nid: int, event_nid: int) -> int:
    """How many notifying events the main timeline has up to an event."""
    value: int | None = txn.value(_ORDINAL_AT, room_nid=room_nid, event_nid=event_nid)
    return value or 0
