"""What a client is known to have: only what came with a token that it shows."""

from ranvier.core.filters import Filter, compile_filter
from ranvier.services.sync import members_sent
from ranvier.services.sync.members_sent import MembersSent
from ranvier.services.sync.request import Profile

PROFILE = Profile(compile_filter(Filter()), 10, False)
CLIENT = (1, "PHONE", PROFILE)
ALICE, BOB, CAROL = (7, 101), (7, 102), (7, 103)


def test_members_count_once_their_token_comes_back():
    sent = MembersSent()
    assert sent.known_at(*CLIENT, None) == frozenset()
    sent.sent(*CLIENT, None, 10, [ALICE])
    assert sent.known_at(*CLIENT, 10) == {ALICE}
    sent.sent(*CLIENT, 10, 20, [BOB])
    assert sent.known_at(*CLIENT, 20) == {ALICE, BOB}


def test_a_lost_answer_counts_for_nothing():
    sent = MembersSent()
    sent.known_at(*CLIENT, None)
    sent.sent(*CLIENT, None, 10, [ALICE])
    sent.known_at(*CLIENT, 10)
    sent.sent(*CLIENT, 10, 20, [BOB])  # never arrives
    assert sent.known_at(*CLIENT, 10) == {ALICE}
    sent.sent(*CLIENT, 10, 30, [CAROL])
    assert sent.known_at(*CLIENT, 30) == {ALICE, CAROL}


def test_of_two_requests_at_once_the_answer_that_is_gone_on_from_counts_or_nothing_does():
    sent = MembersSent()
    sent.known_at(*CLIENT, None)
    sent.sent(*CLIENT, None, 10, [ALICE])
    sent.known_at(*CLIENT, 10)
    sent.known_at(*CLIENT, 10)
    sent.sent(*CLIENT, 10, 20, [BOB])
    sent.sent(*CLIENT, 10, 21, [CAROL])
    assert sent.known_at(*CLIENT, 20) == frozenset()


def test_an_unknown_token_or_a_new_beginning_forgets_everything():
    for token in (15, None):
        sent = MembersSent()
        sent.known_at(*CLIENT, None)
        sent.sent(*CLIENT, None, 10, [ALICE])
        assert sent.known_at(*CLIENT, token) == frozenset()
        assert sent.known_at(*CLIENT, 10) == frozenset()


def test_devices_and_filters_are_apart():
    sent = MembersSent()
    sent.known_at(*CLIENT, None)
    sent.sent(*CLIENT, None, 10, [ALICE])
    assert sent.known_at(1, "LAPTOP", PROFILE, 10) == frozenset()
    assert sent.known_at(1, "PHONE", Profile(PROFILE.filter, 10, True), 10) == frozenset()
    assert sent.known_at(*CLIENT, 10) == {ALICE}


def test_the_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(members_sent, "MAX_MEMBERS", 2)
    monkeypatch.setattr(members_sent, "MAX_OF_ALL", 12)  # two clients that have a member each
    sent = MembersSent()
    sent.known_at(*CLIENT, None)
    sent.sent(*CLIENT, None, 10, [ALICE, BOB, CAROL])
    assert sent.known_at(*CLIENT, 10) == frozenset()
    sent.sent(*CLIENT, 10, 20, [ALICE])
    for user_nid in (2, 3):
        sent.known_at(user_nid, "OTHER", PROFILE, None)
        sent.sent(user_nid, "OTHER", PROFILE, None, 10, [ALICE])
    assert sent.known_at(*CLIENT, 20) == frozenset()
    assert sent.known_at(3, "OTHER", PROFILE, 10) == {ALICE}
