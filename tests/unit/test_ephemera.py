"""What passes waits for a server within bounds, and for one that is not reached hardly at all."""

import json

from ranvier.core.federation.edus import PresenceItem, Receipt, Typing
from ranvier.core.identifiers import EventID, RoomID, UserID
from ranvier.services.federation.ephemera import MAX_PARKED, MAX_WAITING, Ephemera

ROOM = RoomID("!room:here")


def receipt(number: int) -> Receipt:
    return Receipt(ROOM, UserID(f"@u{number}:here"), EventID(f"$e{number}"), number, None)


def waiting(ephemera: Ephemera) -> list[dict]:
    return [json.loads(edu) for edu in ephemera.take(10_000)]


def readers(ephemera: Ephemera) -> set[str]:
    return {
        user
        for edu in waiting(ephemera)
        if edu["edu_type"] == "m.receipt"
        for user in edu["content"][ROOM]["m.read"]
    }


def test_the_newest_wait():
    ephemera = Ephemera()
    for number in range(MAX_WAITING + 3):
        ephemera.add(receipt(number))
    assert readers(ephemera) == {f"@u{number}:here" for number in range(3, MAX_WAITING + 3)}
    assert not ephemera


def test_a_server_that_is_not_reached_gets_the_newest_receipts_and_nothing_else():
    ephemera = Ephemera()
    for number in range(MAX_PARKED + 3):
        ephemera.add(receipt(number), is_parked=True)
        ephemera.add(Typing(ROOM, UserID(f"@u{number}:here"), True), is_parked=True)
        ephemera.add(PresenceItem(UserID(f"@u{number}:here"), "online", 1), is_parked=True)
    edus = waiting(ephemera)
    assert {edu["edu_type"] for edu in edus} == {"m.receipt"}
    assert sum(len(edu["content"][ROOM]["m.read"]) for edu in edus) == MAX_PARKED


def test_what_waited_when_it_was_lost_is_cut_down():
    ephemera = Ephemera()
    for number in range(MAX_WAITING):
        ephemera.add(receipt(number))
    ephemera.add(receipt(MAX_WAITING), is_parked=True)
    assert len(readers(ephemera)) == MAX_PARKED
