"""Which of two PDUs holds a slot of a context's state: "clobbering", as it was in August 2014.

Both branches are followed back along prev_state until they meet. What was made in the knowledge of the other
wins; else the branch with the greater power, then the longer one, then the one whose hash is greater. All
servers that hold the same two branches decide alike, in whichever order they came.

Rules for this file: no I/O; what is not held is told by an exception. Source: docs/federation-2014.md, "State".
"""

import hashlib
from collections.abc import Callable
from typing import Final

from ranvier.historical.federation_2014.pdu import OldPdu
from ranvier.store.tables.historical_pdus import Name

MAX_BRANCH: Final = 1_000
"""PDUs that are followed back in one branch. Beyond, what was seen is compared."""

Lookup = Callable[[Name], OldPdu | None]
"""The PDU of a name; None: there is none, and none can be had."""


class MissingPdu(Exception):
    """A PDU of one of the branches is not held: it is to be fetched, and everything begun anew."""

    def __init__(self, name: Name) -> None:
        super().__init__(f"{name[1]}@{name[0]}")
        self.name = name


class _Branch:
    """A way back along prev_state."""

    def __init__(self, tip: OldPdu) -> None:
        self.pdus = [tip]
        self.names = {tip.name}
        self.is_ended = False

    @property
    def next(self) -> Name | None:
        """What the last PDU says that it replaced."""
        name = self.pdus[-1].prev_state
        return None if self.is_ended or name in self.names or len(self.pdus) >= MAX_BRANCH else name

    def follow(self, name: Name, lookup: Lookup) -> None:
        """Go on to a PDU, if it can be had and was in the same slot; else the branch ends."""
        pdu, tip = lookup(name), self.pdus[0]
        if pdu is None or (pdu.context, pdu.pdu_type, pdu.state_key) != (
            tip.context,
            tip.pdu_type,
            tip.state_key,
        ):
            self.is_ended = True
            return
        self.pdus.append(pdu)
        self.names.add(pdu.name)

    def cut_at(self, name: Name) -> OldPdu:
        """Leave only what is newer than the PDU of that name, which is returned."""
        index = next(i for i, pdu in enumerate(self.pdus) if pdu.name == name)
        ancestor = self.pdus[index]
        self.pdus = self.pdus[:index]
        return ancestor


def replaces(new: OldPdu, current: OldPdu, lookup: Lookup) -> bool:
    """Whether `new` takes the slot from `current`.

    Raises: whatever `lookup` raises, such as MissingPdu.
    """
    ours, theirs = _Branch(new), _Branch(current)
    ancestor = _cut_common_past(ours, theirs, lookup)
    if not theirs.pdus:
        return True  # made in the knowledge of `current`
    if not ours.pdus:
        return False  # `current` was made in the knowledge of it
    return _rank(ours, ancestor) > _rank(theirs, ancestor)


def _cut_common_past(new: _Branch, current: _Branch, lookup: Lookup) -> OldPdu | None:
    """Follow both back until they meet, the deeper one first. What both have is cut off; the newest of that is
    returned, None if they never meet."""
    while True:
        if (name := new.next) is not None and name in current.names:
            return current.cut_at(name)
        if (name := current.next) is not None and name in new.names:
            return new.cut_at(name)
        moving = current
        if current.next is None or (new.next is not None and new.pdus[-1].depth > current.pdus[-1].depth):
            moving = new
        name = moving.next
        if name is None:
            return None
        moving.follow(name, lookup)


def _rank(branch: _Branch, ancestor: OldPdu | None) -> tuple[bool, int, int, str]:
    """What is compared: the greatest power level (to have none is least), the length, the hash."""
    levels = [pdu.power_level for pdu in branch.pdus if pdu.power_level is not None]
    pdus = [*branch.pdus, *([] if ancestor is None else [ancestor])]
    text = "".join(pdu.name[1] + pdu.name[0] for pdu in pdus)
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return bool(levels), max(levels, default=0), len(branch.pdus), digest
