"""Members of today who may not see an event of a branch of the room on which they were not in it.

The rules are those of `core.visibility`; `sight` has them for readers. Here an event is about to be appended.
"""

from typing import Final

from ranvier.core import state_map
from ranvier.core.canonical_json import parse_object
from ranvier.core.identifiers import StateKey, UserID
from ranvier.core.visibility import can_see, needs_memberships, parse_history_visibility
from ranvier.store.database import WriteTxn
from ranvier.store.tables.events import list_events
from ranvier.store.tables.interned import Interner, find_state_key_nids, list_user_ids
from ranvier.store.tables.memberships import list_local_members, list_stored_memberships
from ranvier.store.tables.prepared import PreparedEvent
from ranvier.store.tables.state_nodes import PendingNodes

_VISIBILITY: Final[StateKey] = ("m.room.history_visibility", "")
_NOBODY: Final[frozenset[UserID]] = frozenset()


def list_outsiders(
    txn: WriteTxn, interner: Interner, nodes: PendingNodes, room_nid: int, event: PreparedEvent
) -> frozenset[UserID]:
    """The local members of the room who may not see the event.

    Cost: 2 queries at most where members see what is said without them; else 4 more.
    """
    pdu, root = event.pdu, event.state_before
    slot = find_state_key_nids(txn, interner, (_VISIBILITY,)).get(_VISIBILITY)
    found = None if slot is None or root is None else state_map.get(nodes, root, slot)
    if found is None or root is None:
        return _NOBODY
    before = parse_object(list_events(txn, (found,))[found].json)["content"]
    visibilities = [parse_history_visibility(before)]
    slot_set = pdu.slot if pdu.is_state else None
    if slot_set == _VISIBILITY:
        visibilities.append(parse_history_visibility(pdu.content))
    if not all(needs_memberships((one,)) for one in visibilities):
        return _NOBODY
    users = list_user_ids(txn, interner, list_local_members(txn, room_nid)).values()
    members: list[StateKey] = [("m.room.member", user_id) for user_id in users]
    slots = find_state_key_nids(txn, interner, members)
    state = state_map.get_many(nodes, root, slots.values())
    said = list_stored_memberships(txn, state.values())
    at = {UserID(key): said[state[nid]] for (_, key), nid in slots.items() if nid in state}
    return frozenset(
        [
            user_id
            for user_id in users
            if slot_set != ("m.room.member", user_id)
            and not any(can_see(one, at.get(user_id, "leave"), joined_after=True) for one in visibilities)
        ]
    )
