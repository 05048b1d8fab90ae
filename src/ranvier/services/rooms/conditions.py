"""Restricted rooms: whether a user fulfills a condition of the join rules, and who of here can let them in.

Spec: client-server API, "Restricted rooms"; server-server API, "Restricted rooms".
"""

from collections.abc import Mapping
from typing import Final

from ranvier.core.auth.power import PowerLevels
from ranvier.core.auth.select import CREATE, POWER_LEVELS
from ranvier.core.errors import BadIdentifier
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import RoomID, StateKey, UserID, parse_room_id, parse_user_id, server_of
from ranvier.core.room_versions import RoomVersion
from ranvier.store.database import ReadTxn
from ranvier.store.tables import memberships
from ranvier.store.tables.interned import Interner, find_user_nids, list_user_ids

RESTRICTED: Final = ("restricted", "knock_restricted")
"""Join rules with conditions."""


def join_rule_of(join_rules: Pdu | None) -> str:
    """`invite` where the room has no join rules, or none that can be read."""
    rule = None if join_rules is None else join_rules.content.get("join_rule")
    return rule if isinstance(rule, str) else "invite"


def list_allowed_rooms(join_rules: Pdu | None) -> list[RoomID]:
    """The rooms whose members may join, by the conditions of a restricted room; empty for other rooms."""
    if join_rules is None or join_rule_of(join_rules) not in RESTRICTED:
        return []
    allow = join_rules.content.get("allow")
    found: list[RoomID] = []
    for condition in allow if isinstance(allow, list) else ():
        if isinstance(condition, dict) and condition.get("type") == "m.room_membership":
            try:
                found.append(parse_room_id(condition.get("room_id")))
            except BadIdentifier:  # a condition that nobody can fulfill
                continue
    return found


def meets_condition(txn: ReadTxn, user_nid: int, join_rules: Pdu | None) -> bool:
    """Whether the user is joined to one of the rooms that the conditions name. Cost: 1 query."""
    allowed = list_allowed_rooms(join_rules)
    return bool(allowed) and bool(memberships.list_joined_among(txn, user_nid, allowed))


def find_authorising_user(
    txn: ReadTxn,
    interner: Interner,
    room_nid: int,
    state: Mapping[StateKey, Pdu | None],
    version: RoomVersion,
) -> UserID | None:
    """A joined user of this server who may invite: the join is signed in their name. The mightiest first, whose
    power is the least likely to end.

    `state` holds the room's CREATE and POWER_LEVELS. Cost: 1 query, or 2 where everybody may invite.
    """
    power = PowerLevels.from_events(state[CREATE], state[POWER_LEVELS], version)
    named = {*_own_users(power.creators, interner), *_own_users(power.users, interner)}
    mighty = [user_id for user_id in named if power.user_level(user_id) >= power.invite]
    nids = find_user_nids(txn, interner, mighty)
    joined = {
        nid
        for nid, one in memberships.list_memberships(txn, room_nid, nids.values()).items()
        if one.membership == memberships.JOIN
    }
    candidates = [user_id for user_id, nid in nids.items() if nid in joined]
    if candidates:
        return max(candidates, key=lambda user_id: (power.user_level(user_id), user_id))
    if power.single_level("users_default") < power.invite:
        return None
    members = list_user_ids(txn, interner, memberships.list_local_members(txn, room_nid)).values()
    return next((user_id for user_id in members if power.user_level(user_id) >= power.invite), None)


def _own_users(user_ids: object, interner: Interner) -> list[UserID]:
    """Those of this server; power levels may name whatever they like."""
    found: list[UserID] = []
    for user_id in user_ids if isinstance(user_ids, (frozenset, dict)) else ():
        try:
            if server_of(parse_user_id(user_id)) == interner.own_server:
                found.append(UserID(user_id))
        except BadIdentifier:
            continue
    return found
