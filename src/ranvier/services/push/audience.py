"""The local members of a room and what notifies them, in memory: whom an event may concern.

A `RoomAudience` belongs to the pending head of one live room. It is replaced and never changed, so that a fork
of the room has its own. Users whose rules are not in memory are `unknown`; they are asked in the transaction
that stores the event, and known before the next one.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, UserID
from ranvier.core.push.evaluate import Audience
from ranvier.core.push.event import ThreadContext
from ranvier.core.push.rules import decode_user_rules
from ranvier.core.push.ruleset import DEFAULT_RULESET, Ruleset, compile_ruleset
from ranvier.services.recent import Recent
from ranvier.store.database import ReadTxn
from ranvier.store.tables import account_data, events, memberships, push_rules, rooms
from ranvier.store.tables.interned import Interner, list_user_ids
from ranvier.store.tables.thread_subscriptions import list_subscribed

MAX_RULES_BYTES: Final = 8 * 1024 * 1024
"""Of the stored rules of which the compiled ones are kept, all together."""
_RULESET_BYTES: Final = 1_000
"""What a set takes besides, about."""

_NOBODY: Final[frozenset[UserID]] = frozenset()


class RoomAudience(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Those who are joined, and their rules."""

    known: Audience
    unknown: frozenset[UserID]
    joined_count: int  # remote members included
    ignoring: Mapping[str, frozenset[UserID]]  # sender -> members who ignore that user
    as_of: int  # the newest change of rules that is in here
    subscribers: Mapping[EventID, frozenset[UserID]] = {}  # root of a thread -> members who follow it

    def thread(self, root: EventID) -> ThreadContext:
        """What a thread is to those whose rules are known. Only rulesets of their own look at it."""
        subscribers = self.subscribers.get(root, _NOBODY)
        return ThreadContext(subscribers, frozenset(self.known.rulesets) - subscribers)

    @property
    def is_empty(self) -> bool:
        return not (self.known.default_users or self.known.rulesets or self.unknown)

    def is_nobody_but(self, user_id: str) -> bool:
        """Whether none is there but perhaps this user."""
        known = self.known
        return len(known.default_users) + len(known.rulesets) + len(self.unknown) <= (user_id in self)

    def __contains__(self, user_id: str) -> bool:
        known = self.known
        return user_id in known.default_users or user_id in known.rulesets or user_id in self.unknown

    @property
    def members(self) -> frozenset[UserID]:
        """All of them. Cost: their number."""
        return frozenset(self.known.default_users) | self.known.rulesets.keys() | self.unknown

    def with_member(self, user_id: UserID, member: Pdu, *, is_joined: bool) -> "RoomAudience":
        """After a member event of a local user."""
        if not is_joined:
            return self._without({user_id}, self.unknown - {user_id}) if user_id in self else self
        if user_id not in self:
            return msgspec.structs.replace(self, unknown=self.unknown | {user_id})
        if user_id not in self.known.rulesets:
            return self
        name = member.content.get("displayname")
        names = {one: text for one, text in self.known.display_names.items() if one != user_id}
        if isinstance(name, str):
            names[user_id] = name
        return msgspec.structs.replace(self, known=msgspec.structs.replace(self.known, display_names=names))

    def forgetting(self, user_ids: AbstractSet[UserID]) -> "RoomAudience":
        """The rules of these members are out of date."""
        return self._without(user_ids, self.unknown | user_ids) if user_ids else self

    def _without(self, user_ids: AbstractSet[UserID], unknown: frozenset[UserID]) -> "RoomAudience":
        known = self.known
        return msgspec.structs.replace(
            self,
            known=Audience(
                frozenset(known.default_users) - user_ids,
                {one: ruleset for one, ruleset in known.rulesets.items() if one not in user_ids},
                {one: name for one, name in known.display_names.items() if one not in user_ids},
            ),
            unknown=unknown,
            ignoring={sender: left for sender, users in self.ignoring.items() if (left := users - user_ids)},
            subscribers={
                root: left for root, users in self.subscribers.items() if (left := users - user_ids)
            },
        )

    def with_known(self, rules: "Rules") -> "RoomAudience":
        """What was read of users who were unknown."""
        known = self.known
        learned = self.unknown & rules.rulesets.keys()
        default_users = {user_id for user_id in learned if rules.rulesets[user_id] is DEFAULT_RULESET}
        own = {user_id: rules.rulesets[user_id] for user_id in learned - default_users}
        ignoring = dict(self.ignoring)
        for user_id in learned:
            for ignored in rules.ignored.get(user_id, ()):
                ignoring[ignored] = ignoring.get(ignored, _NOBODY) | {user_id}
        subscribers = dict(self.subscribers)
        for user_id in learned:
            for root in rules.followed.get(user_id, ()):
                subscribers[root] = subscribers.get(root, _NOBODY) | {user_id}
        return msgspec.structs.replace(
            self,
            known=Audience(
                frozenset(known.default_users) | default_users,
                {**known.rulesets, **own},
                {**known.display_names, **{one: rules.names[one] for one in own if one in rules.names}},
            ),
            unknown=self.unknown - learned,
            ignoring=ignoring,
            subscribers=subscribers,
        )


class Rules(msgspec.Struct, frozen=True):
    """What the tables say of some users."""

    rulesets: Mapping[UserID, Ruleset]  # of every user asked about
    ignored: Mapping[UserID, Collection[UserID]]  # whom these users ignore
    names: Mapping[UserID, str]  # in the room, of those whose ruleset asks for it
    followed: Mapping[UserID, Collection[EventID]] = {}  # roots of the threads that they are subscribed to

    def thread(self, root: EventID) -> ThreadContext:
        """What a thread is to these users."""
        subscribers = frozenset(user_id for user_id, roots in self.followed.items() if root in roots)
        return ThreadContext(subscribers, frozenset(self.rulesets) - subscribers)


EMPTY: Final = RoomAudience(known=Audience(_NOBODY), unknown=_NOBODY, joined_count=0, ignoring={}, as_of=0)


class Rulesets:
    """Compiles each distinct set of rules once: users with equal rules share a Ruleset."""

    def __init__(self) -> None:
        self._compiled: Recent[bytes, Ruleset] = Recent(MAX_RULES_BYTES)

    def compile(self, stored: bytes) -> Ruleset:
        """Any thread may call it: at worst, a set is compiled twice."""
        ruleset = self._compiled.get(stored)
        if ruleset is None:
            ruleset = compile_ruleset(decode_user_rules(stored))
            self._compiled.keep(stored, ruleset, _RULESET_BYTES + len(stored))
        return ruleset


def read_audience(
    txn: ReadTxn, interner: Interner, rulesets: Rulesets, room_nid: int, as_of: int
) -> tuple[dict[int, UserID], RoomAudience]:
    """A room's audience as it was committed, and the numbers of those in it. Cost: 5 to 7 queries, whatever the
    number of members."""
    members = memberships.list_local_members(txn, room_nid)
    user_ids = list_user_ids(txn, interner, members)
    room = rooms.list_rooms(txn, (room_nid,)).get(room_nid)
    joined = RoomAudience(
        known=Audience(_NOBODY),
        unknown=frozenset(user_ids.values()),
        joined_count=0 if room is None else room.joined_count,
        ignoring={},
        as_of=as_of,
    )
    return user_ids, joined.with_known(read_rules(txn, interner, rulesets, room_nid, user_ids))


def read_rules(
    txn: ReadTxn, interner: Interner, rulesets: Rulesets, room_nid: int, user_ids: Mapping[int, UserID]
) -> Rules:
    """The rules of users (by user_nid), for one room."""
    changes = push_rules.list_push_rules(txn, user_ids.keys())
    found = {
        user_id: rulesets.compile(changes[nid].changes) if nid in changes else DEFAULT_RULESET
        for nid, user_id in user_ids.items()
    }
    ignored_nids = account_data.list_ignored_by(txn, user_ids.keys())
    ignored_ids = list_user_ids(txn, interner, {nid for nids in ignored_nids.values() for nid in nids})
    following = [nid for nid, user_id in user_ids.items() if found[user_id].follows_threads]
    followed = list_subscribed(txn, room_nid, following) if following else {}
    named = {nid: user_id for nid, user_id in user_ids.items() if found[user_id].needs_display_name}
    return Rules(
        found,
        {user_ids[nid]: [ignored_ids[one] for one in nids] for nid, nids in ignored_nids.items()},
        read_names(txn, room_nid, named) if named else {},
        {user_ids[nid]: roots for nid, roots in followed.items()},
    )


class _Content(msgspec.Struct, frozen=True):
    displayname: object = None


class _Member(msgspec.Struct, frozen=True):
    content: _Content


def read_names(txn: ReadTxn, room_nid: int, user_ids: Mapping[int, UserID]) -> dict[UserID, str]:
    """The display names that users have in a room, of those who have one."""
    found = memberships.list_memberships(txn, room_nid, user_ids.keys())
    records = events.list_events(txn, [one.event_nid for one in found.values()])
    names: dict[UserID, str] = {}
    for user_nid, membership in found.items():
        record = records.get(membership.event_nid)
        if record is not None and record.redacted_by is None:
            name = msgspec.json.decode(record.json, type=_Member).content.displayname
            if isinstance(name, str):
                names[user_ids[user_nid]] = name
    return names
