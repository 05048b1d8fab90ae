"""The account data extension: what the user keeps here. Spec: MSC3959."""

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from ranvier.core.filters import compile_filter, parse_filter
from ranvier.core.identifiers import RoomID
from ranvier.services.push.rules import read_push_rules
from ranvier.services.requester import Requester
from ranvier.services.sliding.results import AccountDataAnswer
from ranvier.services.sync.own import account_data_events
from ranvier.store.database import ReadTxn
from ranvier.store.tables.account_data import (
    GLOBAL,
    AccountData,
    list_account_data_changes,
    list_account_data_of_rooms,
)

_EVERYTHING: Final = compile_filter(parse_filter(b"{}")).account_data
_PUSH_RULES: Final = "m.push_rules"


class AccountDataQuestion(msgspec.Struct, frozen=True):
    """What the client has, and what it is to get."""

    since: int | None  # of what belongs to no room; None: it has nothing; `now`: it has all
    fresh: Collection[int]  # rooms of which it has nothing
    known: Mapping[int, int]  # rooms of which something may be new -> up to where it has them
    now: int


def read_account_data_answer(
    txn: ReadTxn, requester: Requester, asked: AccountDataQuestion, room_ids: Mapping[int, RoomID]
) -> AccountDataAnswer:
    """What is new, push rules included; what was deleted is shown as empty.

    Cost: 1 query for push rules, 1 for what the client has nothing of, 1 for what changed.
    """
    found = _read(txn, requester, asked)
    by_room: dict[int, list[AccountData]] = {}
    for one in found:
        by_room.setdefault(one.room_nid, []).append(one)
    of_user = account_data_events(by_room.pop(GLOBAL, ()), _EVERYTHING, None)
    return AccountDataAnswer(
        of_user,
        {
            room_ids[nid]: account_data_events(several, _EVERYTHING, room_ids[nid])
            for nid, several in by_room.items()
        },
    )


def _read(txn: ReadTxn, requester: Requester, asked: AccountDataQuestion) -> list[AccountData]:
    user_nid = requester.user_nid
    fresh = [*asked.fresh, GLOBAL] if asked.since is None else list(asked.fresh)
    found = (
        [one for one in list_account_data_of_rooms(txn, user_nid, fresh) if one.position <= asked.now]
        if fresh
        else []
    )
    known = dict(asked.known)
    is_quiet = asked.since == asked.now
    if asked.since is not None and not is_quiet:
        known[GLOBAL] = asked.since
    if known:
        changes = list_account_data_changes(txn, user_nid, min(known.values()), asked.now)
        found += [one for one in changes if one.room_nid in known and one.position > known[one.room_nid]]
    rules = None if is_quiet else read_push_rules(txn, user_nid, requester.user_id, asked.since or 0)
    if rules is not None:
        found.append(AccountData(GLOBAL, _PUSH_RULES, rules, asked.now))
    return found
