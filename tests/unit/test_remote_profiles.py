"""What other servers say of their users reaches clients only in a form that they can take."""

import pytest

from ranvier.core.errors import BadGateway, NotFound
from ranvier.core.identifiers import ServerName, UserID
from ranvier.io.ports import Unreachable
from ranvier.services.accounts.remote_profiles import LIFETIME_MS, RemoteProfiles
from ranvier.services.remote.requests import Refused

BOB = UserID("@bob:elsewhere")


class Clock:
    now = 10**12

    def now_ms(self):
        return self.now


class Requests:
    """Answers what it is told to, and counts."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    async def ask(self, server, ask):
        self.asked.append((server, ask.uri))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_a_profile_is_asked_for_once_a_minute():
    requests, clock = Requests({"displayname": "Bob", "org.example": [1]}), Clock()
    profiles = RemoteProfiles(requests, clock)
    for _ in range(3):
        assert await profiles.fetch(BOB) == {"displayname": "Bob", "org.example": [1]}
    assert requests.asked == [
        ("elsewhere", "/_matrix/federation/v1/query/profile?user_id=%40bob%3Aelsewhere")
    ]
    clock.now += LIFETIME_MS
    await profiles.fetch(BOB)
    assert len(requests.asked) == 2


async def test_names_that_are_none_are_left_out():
    profiles = RemoteProfiles(Requests({"displayname": None, "avatar_url": {"x": 1}, "m.tz": 1}), Clock())
    assert await profiles.fetch(BOB) == {"m.tz": 1}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Refused(ServerName("elsewhere"), 404, {"errcode": "M_NOT_FOUND"}), NotFound),
        (Refused(ServerName("elsewhere"), 403, {}), NotFound),
        (Refused(ServerName("elsewhere"), 500, {"error": "secret"}), BadGateway),
        (Unreachable("no route"), BadGateway),
    ],
)
async def test_faults_are_told_in_our_own_words(fault, error):
    requests = Requests(fault)
    profiles = RemoteProfiles(requests, Clock())
    for _ in range(2):
        with pytest.raises(error) as caught:
            await profiles.fetch(BOB)
        assert "secret" not in caught.value.message
    assert len(requests.asked) == 2
