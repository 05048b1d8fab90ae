"""The typing extension: who types, in the rooms that a client looks at. Spec: MSC4508."""

from collections.abc import Collection

import msgspec

from ranvier.services.sync.ephemeral import read_typing
from ranvier.store.database import ReadTxn
from ranvier.store.tables.interned import Interner


class TypingQuestion(msgspec.Struct, frozen=True):
    """Joined rooms that the extension is for."""

    entered: Collection[int]  # that it was not for at the last answer: a client has cleared what it knew
    known: Collection[int]  # where it may have changed
    since: int | None
    now: int


def read_typing_answer(txn: ReadTxn, interner: Interner, asked: TypingQuestion) -> dict[int, bytes]:
    """room_nid -> the m.typing event: of rooms that were entered where somebody types, of others where the set of
    those who do has changed. Cost: 3 queries."""
    found: dict[int, bytes] = {}
    if asked.since is not None and asked.known:
        found = read_typing(txn, interner, asked.known, asked.since, asked.now)
    if asked.entered:
        found |= read_typing(txn, interner, asked.entered, None, asked.now)
    return found
