"""Whom each event notifies: worked out when the event is built, stored with it.

For all members with the default rules the event is looked at once, and one row is written, however many they
are. Each of the others costs a row only where the event means something else to that user.

Spec: client-server API, "Receiving notifications".
"""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, UserID
from ranvier.core.invite_permission import Verdict
from ranvier.core.push.evaluate import Audience, Outcomes, evaluate
from ranvier.core.push.event import PushEvent, RoomContext, parse_notification_levels
from ranvier.core.push.rules import NOTHING, Outcome
from ranvier.services.push.audience import (
    EMPTY,
    RoomAudience,
    Rules,
    Rulesets,
    read_audience,
    read_rules,
)
from ranvier.services.push.rule_changes import RuleChanges
from ranvier.services.rooms.live import LiveRoom
from ranvier.services.rooms.permissions import read_invite_permission
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import notifications
from ranvier.store.tables.events import list_known
from ranvier.store.tables.interned import Interner, find_user_nids
from ranvier.store.tables.notifications import NotifyingEvent, UserOutcome
from ranvier.store.tables.relations import THREAD, find_thread_root, relation_of

_MEMBER: Final = "m.room.member"
_NO_OUTCOMES: Final = Outcomes(NOTHING, {})


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What one event does to the counts of local users."""

    sender: UserID | None  # a local one, who has thereby read up to here
    relates_to: EventID | None  # where its thread begins, or what may be in a thread
    is_in_thread: bool  # `relates_to` is the root
    outcomes: Outcomes
    later: "_Later | None"  # who is still to be asked
    left: UserID | None = None  # who is told nothing of it
    quiet: frozenset[UserID] = (
        frozenset()
    )  # to whom the room is quiet; known only where the common outcome notifies
    unseen_by: frozenset[UserID] = frozenset()


class _Later(msgspec.Struct, frozen=True):
    """Users whose rules were not in memory, and the event that they are asked about."""

    users: frozenset[UserID]
    event: PushEvent
    invited: UserID | None  # one of them, who is not in the room yet
    thread_root: EventID | None = None


class PushEffects:
    """The `Effects` of the write path."""

    def __init__(self, db: Database, interner: Interner) -> None:
        self._db = db
        self._interner = interner
        self._suffix = f":{interner.own_server}"
        self._rulesets = Rulesets()
        self._changes = RuleChanges(interner)
        db.subscribe(self._changes.hear)

    async def load(self, room: LiveRoom) -> bool:
        """Bring the room's audience into memory; whether it had to be read. Cost: nothing for a room in use whose
        members' rules did not change."""
        audience = room.effects
        if not isinstance(audience, RoomAudience):
            await self._read_audience(room)
            return True
        audience = self._refresh(room, audience)
        if audience.unknown:
            await self._read_unknown(room, audience)
            return True
        return False

    async def _read_audience(self, room: LiveRoom) -> None:
        as_of = self._changes.newest
        user_ids, audience = await self._db.read(
            read_audience, self._interner, self._rulesets, room.nid, as_of
        )
        self._interner.users.remember({user_id: nid for nid, user_id in user_ids.items()})
        # Another task may have loaded it meanwhile, and built on it.
        if room.effects is None:
            room.effects = audience

    def _refresh(self, room: LiveRoom, audience: RoomAudience) -> RoomAudience:
        """Forget the rules that changed since they were read."""
        newest = self._changes.newest
        if audience.as_of != newest:
            changed = self._changes.since(audience.as_of)
            outdated = audience.members if changed is None else changed & audience.members
            audience = msgspec.structs.replace(audience.forgetting(outdated), as_of=newest)
            room.effects = audience
        return audience

    async def _read_unknown(self, room: LiveRoom, audience: RoomAudience) -> None:
        rules = await self._db.read(
            _read_rules_of, self._interner, self._rulesets, room.nid, audience.unknown
        )
        now = room.effects
        # If it was refreshed meanwhile, what was read may be older than that.
        if isinstance(now, RoomAudience) and now.as_of == audience.as_of:
            room.effects = now.with_known(rules)

    def of(self, room: LiveRoom, pdu: Pdu) -> Effect | None:
        """What `pdu` does, built on the room's pending head; moves the room's audience on. Never raises.

        Cost: one walk through the default rules, and one for each other set of rules among the members.
        """
        audience = room.effects
        if not isinstance(audience, RoomAudience):
            audience = room.effects = msgspec.structs.replace(EMPTY, as_of=self._changes.newest)
        sender = pdu.sender if pdu.sender.endswith(self._suffix) else None
        if pdu.type == _MEMBER and pdu.state_key is not None:
            return self._of_member(room, audience, pdu, sender)
        if sender is None and audience.is_empty:
            return None
        return self._judge(room, audience, pdu, sender, None)

    def _of_member(
        self, room: LiveRoom, audience: RoomAudience, pdu: Pdu, sender: UserID | None
    ) -> Effect | None:
        """A member event: whoever it invites is asked, too; who joins counts from here on, until leaving."""
        user_id, membership = UserID(str(pdu.state_key)), pdu.content.get("membership")
        is_local = user_id.endswith(self._suffix)
        invited = user_id if is_local and membership == "invite" and user_id not in audience else None
        effect = self._judge(room, audience, pdu, sender, invited)
        was_joined = not room.missing((pdu.slot,)) and room.membership(user_id) == "join"
        is_joined = membership == "join"
        after = audience
        if is_joined != was_joined:
            after = msgspec.structs.replace(
                after, joined_count=max(0, after.joined_count + is_joined - was_joined)
            )
        if is_local:
            after = after.with_member(user_id, pdu, is_joined=is_joined)
            effect = msgspec.structs.replace(
                effect,
                left=user_id if not is_joined and invited is None else None,
            )
        room.effects = after
        return effect

    def _judge(
        self,
        room: LiveRoom,
        audience: RoomAudience,
        pdu: Pdu,
        sender: UserID | None,
        invited: UserID | None,
    ) -> Effect:
        relation = relation_of(pdu) if "m.relates_to" in pdu.content else None
        root = relation.target_event_id if relation is not None and relation.rel_type == THREAD else None
        outcomes, later, quiet = _NO_OUTCOMES, None, frozenset[UserID]()
        asked = audience.unknown if invited is None else audience.unknown | {invited}
        if asked:
            asked -= {pdu.sender}
        # Nobody is notified of what they send: in a room of one local user most events are of no interest here.
        if asked or not audience.is_nobody_but(pdu.sender):
            event = _push_event(room, audience.joined_count, pdu)
            if root is not None:
                event.thread = audience.thread(root)
            outcomes = _spare_ignoring(evaluate(event, audience.known), audience.ignoring.get(pdu.sender))
            if outcomes.common.highlight:
                outcomes = _name_everybody(outcomes, audience.known)
            if outcomes.common.notify:
                quiet = _list_quiet(audience.known, str(pdu.room_id))
                outcomes = _heed_quiet(outcomes, quiet)
            later = _Later(asked, event, invited, root) if asked else None
        return Effect(
            sender=sender,
            relates_to=None if relation is None else relation.target_event_id,
            is_in_thread=root is not None,
            outcomes=outcomes,
            later=later,
            quiet=quiet,
        )

    def without(self, effect: object, user_ids: Collection[UserID]) -> object:
        """What the event does, but for users who may not see it."""
        if not isinstance(effect, Effect):
            return effect
        return msgspec.structs.replace(effect, unseen_by=frozenset(user_ids))

    def store(self, txn: WriteTxn, room_nid: int, effects: Sequence[tuple[int, object]]) -> None:
        """Write what events do, in the transaction that appends them.

        Cost: 1 statement for events of local senders, 2 more if they notify, 1 more if they mean something
        else to some, 1 or more for each that relates to another.
        """
        known = [(event_nid, effect) for event_nid, effect in effects if isinstance(effect, Effect)]
        writing = _Writing(txn, self._interner, self._rulesets, room_nid)
        stored = [one for event_nid, effect in known if (one := writing.event(event_nid, effect)) is not None]
        if stored:
            notifications.insert_notifications(txn, room_nid, stored)
        if writing.sent:
            notifications.mark_sent(txn, room_nid, writing.sent)


def store_invite(txn: WriteTxn, interner: Interner, room_nid: int, event_nid: int, invite: Pdu) -> None:
    """Write whether an invite into a room that this server is not in notifies the local user who is invited."""
    invited = UserID(str(invite.state_key))
    context = RoomContext(member_count=0, sender_power=0)
    effect = Effect(
        sender=None,
        relates_to=None,
        is_in_thread=False,
        outcomes=_NO_OUTCOMES,
        later=_Later(frozenset((invited,)), PushEvent(_client_fields(invite), context), invited),
    )
    stored = _Writing(txn, interner, Rulesets(), room_nid).event(event_nid, effect)
    if stored is not None:
        notifications.insert_notifications(txn, room_nid, [stored])


class _Writing:
    """One call of `store`."""

    def __init__(self, txn: WriteTxn, interner: Interner, rulesets: Rulesets, room_nid: int) -> None:
        self._txn = txn
        self._interner = interner
        self._rulesets = rulesets
        self._room_nid = room_nid
        self.sent: dict[tuple[int, int], int] = {}  # (user_nid, thread_nid) -> event_nid

    def nid(self, user_id: UserID) -> int:
        """The number of a local user who sent or became something here: so there is one."""
        return find_user_nids(self._txn, self._interner, (user_id,))[user_id]

    def event(self, event_nid: int, effect: Effect) -> NotifyingEvent | None:
        """What to store of an event; None: it notifies nobody."""
        thread_nid = self._find_thread(effect)
        if effect.sender is not None:
            self.sent[self.nid(effect.sender), thread_nid] = event_nid
        common = effect.outcomes.common
        outcomes = {
            user_id: _outcome(outcome)
            for user_id, outcome in effect.outcomes.others.items()
            if user_id not in (effect.sender, effect.left, *effect.unseen_by)
        }
        if effect.unseen_by and common.notify:
            asked = frozenset[UserID]() if effect.later is None else effect.later.users
            outcomes |= dict.fromkeys(effect.unseen_by - effect.quiet - asked, _outcome(NOTHING))
        if effect.later is not None:
            outcomes |= self._ask(effect.later, common, effect.unseen_by)
        nids = find_user_nids(self._txn, self._interner, outcomes.keys()) if outcomes else {}
        others = {nids[user_id]: outcome for user_id, outcome in outcomes.items() if user_id in nids}
        if not (common.notify or others):
            return None
        actions = _encode_actions(common) if common.notify else None
        return NotifyingEvent(event_nid, thread_nid, actions, others)

    def _find_thread(self, effect: Effect) -> int:
        if effect.relates_to is None:
            return notifications.MAIN_TIMELINE
        root: EventID | None = effect.relates_to
        if not effect.is_in_thread:
            root = find_thread_root(self._txn, self._room_nid, effect.relates_to)
            if root is None:
                return notifications.MAIN_TIMELINE
        found = list_known(self._txn, (root,)).get(root) if root is not None else None
        # The root may not have arrived yet.
        is_here = found is not None and found.room_nid == self._room_nid
        return found.event_nid if found is not None and is_here else notifications.MAIN_TIMELINE

    def _ask(self, later: _Later, common: Outcome, unseen_by: frozenset[UserID]) -> dict[UserID, UserOutcome]:
        """What the event means to those whose rules were not in memory, where it is not the common outcome."""
        nids = find_user_nids(self._txn, self._interner, later.users)
        user_ids = {nid: user_id for user_id, nid in nids.items()}
        rules = read_rules(self._txn, self._interner, self._rulesets, self._room_nid, user_ids)
        root = later.thread_root
        event = later.event if root is None else later.event.with_thread(rules.thread(root))
        outcomes = evaluate(event, Audience(frozenset(), rules.rulesets, rules.names))
        found: dict[UserID, UserOutcome] = {}
        for user_id in rules.rulesets:
            is_unwanted = (
                user_id in unseen_by
                or later.event.sender in rules.ignored.get(user_id, ())
                or (user_id == later.invited and self._is_unwanted(nids[user_id], later.event.sender))
            )
            outcome = NOTHING if is_unwanted else outcomes.of(user_id)
            is_quiet = user_id == later.invited or rules.rulesets[user_id].is_quiet(str(later.event.room_id))
            if outcome.highlight or outcome != (NOTHING if is_quiet else common):
                found[user_id] = _outcome(outcome)
        return found

    def _is_unwanted(self, user_nid: int, inviter: object) -> bool:
        permission = read_invite_permission(self._txn, user_nid)
        return isinstance(inviter, str) and permission.decide(UserID(inviter)) is not Verdict.ALLOW


def _push_event(room: LiveRoom, joined_count: int, pdu: Pdu) -> PushEvent:
    power = room.power
    context = RoomContext(
        member_count=joined_count,
        sender_power=power.user_level(pdu.sender),
        notification_levels=parse_notification_levels(power.content),
    )
    return PushEvent(_client_fields(pdu), context)


def _client_fields(pdu: Pdu) -> JsonObject:
    """What a rule may look at."""
    event: JsonObject = {
        "type": pdu.type,
        "sender": pdu.sender,
        "content": pdu.content,
        "room_id": pdu.room_id,
        "event_id": pdu.event_id,
        "origin_server_ts": pdu.origin_server_ts,
    }
    if pdu.state_key is not None:
        event["state_key"] = pdu.state_key
    if pdu.redacts is not None:
        event["redacts"] = pdu.redacts
    return event


def _spare_ignoring(outcomes: Outcomes, ignoring: frozenset[UserID] | None) -> Outcomes:
    """Nothing for those who ignore the sender."""
    if not ignoring:
        return outcomes
    others = {user_id: outcome for user_id, outcome in outcomes.others.items() if user_id not in ignoring}
    if outcomes.common != NOTHING:
        others.update(dict.fromkeys(ignoring, NOTHING))
    return Outcomes(outcomes.common, others)


def _name_everybody(outcomes: Outcomes, audience: Audience) -> Outcomes:
    """What highlights for all is counted for each, since only differences count highlights."""
    everybody = dict.fromkeys((*audience.default_users, *audience.rulesets), outcomes.common)
    return Outcomes(outcomes.common, everybody | dict(outcomes.others))


def _list_quiet(audience: Audience, room_id: str) -> frozenset[UserID]:
    """Those to whom the room is quiet."""
    return frozenset([user_id for user_id, ruleset in audience.rulesets.items() if ruleset.is_quiet(room_id)])


def _heed_quiet(outcomes: Outcomes, quiet: frozenset[UserID]) -> Outcomes:
    """Those to whom the room is quiet count nothing of it: they are named if the event notifies them, else not."""
    if not quiet:
        return outcomes
    others = dict(outcomes.others)
    for user_id in quiet:
        outcome = outcomes.of(user_id)
        if outcome.notify:
            others[user_id] = outcome
        else:
            others.pop(user_id, None)
    return Outcomes(outcomes.common, others)


def _outcome(outcome: Outcome) -> UserOutcome:
    return UserOutcome(outcome.notify, outcome.highlight, _encode_actions(outcome))


def _encode_actions(outcome: Outcome) -> str:
    return msgspec.json.encode(outcome.actions).decode()


def _read_rules_of(
    txn: ReadTxn, interner: Interner, rulesets: Rulesets, room_nid: int, user_ids: frozenset[UserID]
) -> Rules:
    nids = find_user_nids(txn, interner, user_ids)
    return read_rules(txn, interner, rulesets, room_nid, {nid: user_id for user_id, nid in nids.items()})
