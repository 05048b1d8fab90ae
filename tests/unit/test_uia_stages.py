"""Flows of several stages: done in their order, remembered between requests, used up once."""

from collections.abc import AsyncIterator

import pytest

from ranvier.core.errors import Forbidden, UiaRequired
from ranvier.io.clock import SystemClock
from ranvier.io.randomness import seeded_randomness
from ranvier.services.accounts.sweeping import sweep
from ranvier.services.accounts.uia import SESSION_LIFETIME_MS, UserInteractive
from ranvier.store.connect import open_database
from ranvier.store.database import Database

FLOWS = (("a", "b"), ("a", "c", "d"))


class Stage:
    """Proved by the word "yes"."""

    def __init__(self, type_: str) -> None:
        self.type = type_
        self.attempts = 0

    async def attempt(self, user_nid, auth):
        self.attempts += 1
        if auth.get("word") != "yes":
            raise Forbidden("That is not the word.")
        return f'"{self.type} proved"'.encode()


@pytest.fixture
async def db(tmp_path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:{tmp_path / 'ranvier.db'}")
    yield database
    await database.close()


@pytest.fixture
def stages():
    return {name: Stage(name) for name in "abcd"}


@pytest.fixture
def uia(db, stages):
    return UserInteractive(db, SystemClock(), seeded_randomness(1), stages.values())


async def refused(uia, auth, request="op"):
    with pytest.raises(UiaRequired) as caught:
        await uia.authorize(None, request, auth, FLOWS)
    return caught.value.body()


def proof(stage, session, word="yes"):
    return {"type": stage, "session": session, "word": word}


@pytest.mark.parametrize("flow", FLOWS)
async def test_each_flow_leads_to_the_end(uia, flow):
    session = (await refused(uia, None))["session"]
    for number, stage in enumerate(flow[:-1]):
        asked = await refused(uia, proof(stage, session))
        assert asked["completed"] == list(flow[: number + 1])
        assert asked["flows"] == [{"stages": list(flow)} for flow in FLOWS]
        assert "errcode" not in asked
    proofs = await uia.authorize(None, "op", proof(flow[-1], session), FLOWS)
    assert proofs == {stage: f'"{stage} proved"'.encode() for stage in flow}
    assert (await refused(uia, proof(flow[-1], session)))["errcode"] == "M_FORBIDDEN"


@pytest.mark.parametrize("stage", ["b", "c", "d", "unheard-of"])
async def test_stages_have_an_order(uia, stages, stage):
    session = (await refused(uia, None))["session"]
    asked = await refused(uia, proof(stage, session))
    assert (asked["errcode"], asked["session"]) == ("M_FORBIDDEN", session)
    assert "completed" not in asked
    assert all(one.attempts == 0 for one in stages.values())


async def test_a_stage_that_is_done_is_not_asked_again(uia, stages):
    session = (await refused(uia, None))["session"]
    await refused(uia, proof("a", session))
    again = await refused(uia, proof("a", session, word="no"))
    assert (again["completed"], again.get("errcode")) == (["a"], None)
    assert stages["a"].attempts == 1


async def test_what_was_done_without_a_session_is_remembered(uia):
    asked = await refused(uia, {"type": "a", "word": "yes"})
    assert asked["completed"] == ["a"]
    assert await uia.authorize(None, "op", proof("b", asked["session"]), FLOWS)


async def test_a_failure_keeps_what_was_done(uia):
    session = (await refused(uia, None))["session"]
    await refused(uia, proof("a", session))
    failed = await refused(uia, proof("b", session, word="no"))
    assert (failed["completed"], failed["errcode"]) == (["a"], "M_FORBIDDEN")
    assert await uia.authorize(None, "op", proof("b", session), FLOWS)


async def test_what_nobody_goes_on_with_is_swept_away(db, uia):
    old = (await refused(uia, None))["session"]
    await db.write(sweep, SystemClock().now_ms() + SESSION_LIFETIME_MS - 60_000)
    assert (await refused(uia, proof("a", old)))["session"] == old
    await db.write(sweep, SystemClock().now_ms() + SESSION_LIFETIME_MS + 1)
    assert (await refused(uia, proof("b", old)))["session"] != old
