"""What a server of August 2014 would try first: pushing, asking, states, gaps. The peer is played by hand."""

from typing import Any

import pytest

from ranvier.app.config import PresenceConfig

from ...http.client import Answer
from ...http.homeserver import Homeserver, eventually
from .network import OLD, Peers, Played, historical, pdu, state, transaction

CONTEXT = "%23example.green"


async def push(server: Homeserver, txn_id: str, *pdus: dict[str, Any], **more: Any) -> Any:
    answer = await server.client.put(f"{OLD}/send/{txn_id}/", transaction(*pdus, **more))
    assert answer.status == 200, answer.body
    return answer.json["pdus"]


async def get(server: Homeserver, path: str) -> Answer:
    return await server.client.request("GET", f"{OLD}/{path}")


async def ids(server: Homeserver, path: str) -> list[str]:
    answer = await get(server, path)
    assert answer.status == 200, answer.body
    return [one["pdu_id"] for one in answer.json["pdus"]]


async def test_a_message_is_pushed_and_answered(blue: Homeserver) -> None:
    assert await push(blue, "916d630e", pdu("a1")) == {"a1@green.test": {}}


async def test_a_repeated_transaction_gets_the_same_answer_whatever_it_says_now(blue: Homeserver) -> None:
    first = await blue.client.put(f"{OLD}/send/t/", transaction(pdu("a1"), {"pdu_id": "bad"}))
    again = await blue.client.put(f"{OLD}/send/t/", transaction(pdu("a1"), {"pdu_id": "bad"}))
    other = await blue.client.put(f"{OLD}/send/t/", transaction())
    assert first.body == again.body == other.body
    assert await ids(blue, f"backfill/{CONTEXT}/?v=a1,green.test&limit=5") == ["a1"]


async def test_the_path_names_the_transaction(blue: Homeserver) -> None:
    claims = {"transaction_id": "zzz", "destination": "nowhere"}
    assert await push(blue, "t2", pdu("a1"), **claims) == {"a1@green.test": {}}
    assert await push(blue, "zzz", pdu("a2")) == {"a2@green.test": {}}
    assert await push(blue, "t2", pdu("a3")) == {"a1@green.test": {}}


async def test_the_same_id_of_another_origin_is_another_transaction(peers: Peers, green: Played) -> None:
    Played(peers, "red")
    blue = await peers.server("blue", historical=historical("green", "red"))
    await push(blue, "t", pdu("a1"))
    assert await push(blue, "t", pdu("r1", origin="red.test"), origin="red.test") == {"r1@red.test": {}}


async def test_a_pdu_is_served_as_it_was_sent(blue: Homeserver) -> None:
    sent = pdu("a1", msg_id="m1", user_id="@ann:green.test")
    await push(blue, "t", {**sent, "destinations": ["x"], "outlier": True, "transaction_id": "t"})
    answer = await get(blue, "pdu/green.test/a1/")
    assert answer.json.keys() == {"origin", "ts", "pdus"}
    assert answer.json["origin"] == "blue.test"
    assert answer.json["pdus"] == [sent]
    assert (await get(blue, "pdu/green.test/nope/")).errcode == "M_NOT_FOUND"
    assert (await get(blue, "pdu/green.test/nope/")).status == 404


async def test_history_is_walked_with_links_in_either_order(blue: Homeserver) -> None:
    await push(blue, "t1", pdu("a1"))
    await push(blue, "t2", pdu("a2", prev=[["green.test", "a1"]], depth=1))
    await push(blue, "t3", pdu("a3", prev=[["a2", "green.test"]], depth=2))
    assert await ids(blue, f"backfill/{CONTEXT}/?v=a3,green.test&limit=2") == ["a3", "a2"]
    assert await ids(blue, f"backfill/{CONTEXT}/?v=a3,green.test&limit=10") == ["a3", "a2", "a1"]
    assert await ids(blue, f"backfill/{CONTEXT}?v=a3,green.test&limit=10") == ["a3", "a2", "a1"]
    assert await ids(blue, f"backfill/{CONTEXT}/?v=nope,green.test&limit=10") == []
    assert await ids(blue, f"context/{CONTEXT}/") == ["a1", "a2", "a3"]


async def test_a_fork_is_walked_once_and_cut_exactly(blue: Homeserver) -> None:
    link = ["green.test", "a1"]
    await push(blue, "t1", pdu("a1"))
    await push(blue, "t2", pdu("b1", prev=[link], depth=1), pdu("b2", prev=[link], depth=1))
    both = [["green.test", "b1"], ["green.test", "b2"]]
    await push(blue, "t3", pdu("c", prev=both, depth=2))
    walked = await ids(blue, f"backfill/{CONTEXT}/?v=c,green.test&limit=10")
    assert (walked[0], set(walked[1:3]), walked[3:]) == ("c", {"b1", "b2"}, ["a1"])
    assert len(await ids(blue, f"backfill/{CONTEXT}/?v=c,green.test&limit=2")) == 2
    assert await ids(blue, f"backfill/{CONTEXT}/?v=b1,green.test&v=b2,green.test&limit=2") == ["b1", "b2"]


@pytest.mark.parametrize(
    "query",
    [
        *(f"v=a1,green.test{limit}" for limit in ("", "&limit=", "&limit=x", "&limit=-1")),
        *("limit=5", "v=a1&limit=5", "v=,x&limit=5"),
    ],
)
async def test_backfill_needs_a_start_and_a_limit(blue: Homeserver, query: str) -> None:
    answer = await get(blue, f"backfill/{CONTEXT}/?{query}")
    assert answer.status == 400
    assert isinstance(answer.json["error"], str)


async def test_what_is_said_about_a_missing_limit(blue: Homeserver) -> None:
    answer = await get(blue, f"backfill/{CONTEXT}/?v=a1,green.test")
    assert answer.json["error"] == "Did not include limit param"


async def test_state_is_replaced_by_what_follows_it(blue: Homeserver) -> None:
    assert await ids(blue, f"state/{CONTEXT}/") == []
    await push(blue, "t1", state("s1"))
    assert await ids(blue, f"state/{CONTEXT}/") == ["s1"]
    await push(blue, "t2", state("s2", prev_state="s1", prev=[["green.test", "s1"]], depth=1))
    assert await ids(blue, f"state/{CONTEXT}") == ["s2"]


@pytest.mark.parametrize("levels", [(5, 10), (10, 5)])
async def test_of_two_states_that_of_more_power_holds(blue: Homeserver, levels: tuple[int, int]) -> None:
    await push(blue, "t0", state("A"))
    for level in levels:
        await push(blue, f"t{level}", state(f"p{level}", prev_state="A", power_level=level, depth=1))
    assert await ids(blue, f"state/{CONTEXT}/") == ["p10"]


@pytest.mark.parametrize("order", ["BC", "CB"])
async def test_of_two_equal_states_the_same_one_holds_in_either_order(blue: Homeserver, order: str) -> None:
    await push(blue, "t0", state("A"))
    for one in order:
        await push(blue, f"t{one}", state(one, prev_state="A", power_level=5, depth=1))
    (held,) = await ids(blue, f"state/{CONTEXT}/")
    assert held == "B"  # sha1 of "Bgreen.testAgreen.test" is the greater one


async def test_an_empty_transaction_is_well(blue: Homeserver) -> None:
    answer = await blue.client.put(f"{OLD}/send/e", {"origin": "green.test", "ts": 1, "pdus": []})
    assert answer.json == {"pdus": {}}
    answer = await blue.client.put(f"{OLD}/send/f", {"origin": "green.test", "origin_server_ts": 1})
    assert answer.json == {"pdus": {}}


async def test_a_missing_ancestor_is_asked_for(blue: Homeserver, green: Played) -> None:
    await push(blue, "t1", pdu("a1"))
    green.hold(
        pdu("a8", prev=[["green.test", "a7"]], depth=8), pdu("a7", prev=[["green.test", "a1"]], depth=7)
    )
    await push(blue, "t2", pdu("a9", prev=[["green.test", "a8"]], depth=9))
    assert green.asked == [f"GET {OLD}/pdu/green.test/a8/", f"GET {OLD}/pdu/green.test/a7/"]
    walked = await ids(blue, f"backfill/{CONTEXT}/?v=a9,green.test&limit=10")
    assert walked == ["a9", "a8", "a7", "a1"]


async def test_at_first_contact_with_a_context_nothing_is_asked_for(blue: Homeserver, green: Played) -> None:
    await push(blue, "t", pdu("a9", prev=[["green.test", "a8"]], depth=9))
    assert green.asked == []


async def test_an_ancestor_that_cannot_be_had_holds_nothing_up(blue: Homeserver, green: Played) -> None:
    await push(blue, "t1", pdu("a1"))
    assert await push(blue, "t2", pdu("a9", prev=[["green.test", "a8"]], depth=9)) == {"a9@green.test": {}}
    assert green.asked == [f"GET {OLD}/pdu/green.test/a8/"]


async def test_the_walk_to_ancestors_is_capped_and_history_is_asked_for_once(
    blue: Homeserver, green: Played
) -> None:
    await push(blue, "t1", pdu("a0"))
    green.hold(*(pdu(f"a{n}", prev=[["green.test", f"a{n - 1}"]], depth=n) for n in range(2, 400)))
    await push(blue, "t2", pdu("a400", prev=[["green.test", "a399"]], depth=400))
    assert len([one for one in green.asked if "/pdu/" in one]) == 100
    assert len([one for one in green.asked if "/backfill/" in one]) == 1
    assert len(green.asked) == 101
    walked = await ids(blue, f"backfill/{CONTEXT}/?v=a400,green.test&limit=100")
    assert walked[:3] == ["a400", "a399", "a398"]


async def test_a_lost_transaction_is_pulled(blue: Homeserver, green: Played) -> None:
    await push(blue, "first", pdu("a1"), prev_ids=["before-all"])
    assert green.asked == []  # the first contact
    green.pulled = [pdu("a2", prev=[["green.test", "a1"]], depth=1)]
    await push(blue, "third", pdu("a3", prev=[["green.test", "a2"]], depth=2), prev_ids=["never-sent"])
    assert green.asked == [f"GET {OLD}/pull/?origin=blue.test&v=first"]
    assert await ids(blue, f"backfill/{CONTEXT}/?v=a3,green.test&limit=10") == ["a3", "a2", "a1"]
    await push(blue, "fourth", prev_ids=["third"])
    assert len(green.asked) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"NaN", b"[1,2", b'{"origin":"green.test","ts":1'])
async def test_what_is_not_json_is_no_transaction(blue: Homeserver, body: bytes) -> None:
    answer = await blue.client.request("PUT", f"{OLD}/send/t/", body=body)
    assert (answer.status, answer.json["error"]) == (400, "Invalid transaction")


@pytest.mark.parametrize(
    "body",
    [[], 1, None, {}, {"origin": "green.test"}, {"ts": 1}, {"origin": 1, "ts": 1}, {"origin": "", "ts": 1}]
    + [{"origin": "green.test", "ts": one} for one in ("1", 1.5, None, True, 2**60)]
    + [{"origin": "green.test", "ts": 1, "pdus": one} for one in ({}, 1, "x", [0] * 1001)]
    + [{"origin": "green.test", "ts": 1, "edus": one} for one in ({}, 1, "x")]
    + [{"origin": "green.test", "ts": 1, "prev_ids": one} for one in ({"a": 1}, 1, [1])],
)
async def test_a_malformed_envelope_is_refused(blue: Homeserver, body: Any) -> None:
    answer = await blue.client.put(f"{OLD}/send/t/", body)
    assert answer.status == 400
    assert answer.json["error"].startswith("Invalid transaction")


async def test_a_bad_pdu_among_good_ones_is_told_alone(blue: Homeserver) -> None:
    results = await push(blue, "t", pdu("a1"), pdu("bad", ts="never"), 7, pdu("a2"))
    assert results["a1@green.test"] == results["a2@green.test"] == {}
    assert "ts" in results["bad@green.test"]["error"]
    assert results["#2"]["error"]


@pytest.mark.parametrize("origin", ["red.test", "blue.test", "GREEN.TEST", "green.test:80", "nobody"])
async def test_nothing_is_believed_from_who_is_no_peer(blue: Homeserver, origin: str) -> None:
    answer = await blue.client.put(f"{OLD}/send/t/", transaction(pdu("a1"), origin=origin))
    assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")
    assert (await get(blue, "pdu/green.test/a1/")).status == 404
    assert (await get(blue, f"pull/?origin={origin}&v=x")).status == 403


async def test_a_pdu_of_who_is_no_peer_is_refused_whoever_sends_it(blue: Homeserver) -> None:
    results = await push(blue, "t", pdu("r1", origin="red.test"))
    assert "red.test" in results["r1@red.test"]["error"]
    assert (await get(blue, "pdu/red.test/r1/")).status == 404


async def test_a_pdu_that_claims_to_be_ours_is_refused(blue: Homeserver) -> None:
    results = await push(blue, "t", pdu("b1", origin="blue.test"))
    assert "error" in results["b1@blue.test"]
    assert (await get(blue, "pdu/blue.test/b1/")).status == 404


async def test_a_peer_speaks_for_its_own_users_alone(blue: Homeserver) -> None:
    for user_id in ("@bob:blue.test", "@rob:red.test", "nobody"):
        results = await push(blue, f"t{user_id}", pdu("m", user_id=user_id))
        assert "user_id" in results["m@green.test"]["error"]


async def test_one_name_is_of_one_context(blue: Homeserver) -> None:
    results = await push(blue, "t", pdu("a1"), pdu("a1", context="#other"))
    assert results == {"a1@green.test": {}}  # it is held already: nothing is done
    assert await ids(blue, "context/%23other/") == []


async def test_off_means_that_there_is_nothing(peers: Peers) -> None:
    server = await peers.server("off", historical=historical())
    assert (await get(server, f"state/{CONTEXT}/")).status == 200
    await peers.stop("off")
    off = await peers.server("plain", registration=server.foundation.ports.config.registration)
    for prefix in (OLD, "/_matrix/federation/v1"):
        for path in ("send/t/", "pdu/a/b/", "state/c/", "pull/", "query/profile/", "context/c/"):
            method = "PUT" if path.startswith("send") else "GET"
            answer = await off.client.request(
                method, f"{prefix}/{path}", json={} if method == "PUT" else None
            )
            assert (answer.status, answer.errcode) == (404, "M_UNRECOGNIZED"), path


async def test_the_prefix_of_later_in_2014_leads_to_the_same(blue: Homeserver) -> None:
    new = "/_matrix/federation/v1"
    answer = await blue.client.put(f"{new}/send/t/", transaction(state("s1")))
    assert answer.json == {"pdus": {"s1@green.test": {}}}
    for path in ("pdu/green.test/s1/", "pdu/green.test/s1", f"state/{CONTEXT}/", f"context/{CONTEXT}/"):
        answer = await blue.client.request("GET", f"{new}/{path}")
        assert [one["pdu_id"] for one in answer.json["pdus"]] == ["s1"], path
    answer = await blue.client.request("GET", f"{new}/pull/?origin=green.test&v=x")
    assert answer.json["pdus"] == []


async def test_queries(blue: Homeserver) -> None:
    ann = await blue.register("ann")
    await ann.put(f"/_matrix/client/v3/profile/{ann.user_id}/displayname", {"displayname": "Ann"})
    answer = await get(blue, "query/profile?user_id=%40ann%3Ablue.test")
    assert answer.json == {"displayname": "Ann", "avatar_url": None}
    answer = await get(blue, "query/profile?user_id=%40ann%3Ablue.test&field=displayname")
    assert answer.json == {"displayname": "Ann"}
    answer = await get(blue, "query/profile/?user_id=%40x%3Aelsewhere")
    assert (answer.status, answer.json["error"]) == (400, "User is not hosted on this Home Server")
    assert (await get(blue, "query/profile?user_id=%40nobody%3Ablue.test")).status == 404
    assert (await get(blue, "query/profile")).status == 400
    await ann.post(
        "/_matrix/client/v3/createRoom", {"room_version": "org.ranvier.2014", "room_alias_name": "room"}
    )
    answer = await get(blue, "query/directory?room_alias=%23room%3Ablue.test")
    assert answer.json["room_id"].endswith(":blue.test")
    assert answer.json["servers"] == ["blue.test"]
    assert (await get(blue, "query/directory?room_alias=%23nope%3Ablue.test")).status == 404
    assert (await get(blue, "query/directory?room_alias=%23room%3Aelsewhere")).status == 400
    answer = await get(blue, "query/nonsense")
    assert answer.status == 404
    assert answer.json["error"] == "No handler for Query type 'nonsense'"


async def test_unknown_edus_are_ignored(blue: Homeserver) -> None:
    edus = [{"edu_type": "m.test", "content": {"testing": "reply here"}}, 7, {"edu_type": 1, "content": {}}]
    assert await push(blue, "t", pdu("a1"), edus=edus) == {"a1@green.test": {}}


async def test_a_poll_is_answered_and_an_observer_accepted(peers: Peers, green: Played) -> None:
    blue = await peers.server("blue", historical=historical("green"), presence=PresenceConfig(enabled=True))
    ann = await blue.register("ann")
    await ann.put(f"/_matrix/client/v3/presence/{ann.user_id}/status", {"presence": "online"})
    poll = {"edu_type": "m.presence", "content": {"poll": [ann.user_id, "@x:green.test"]}}
    asks = {"observed_user": ann.user_id, "observer_user": "@gil:green.test"}
    await push(blue, "t", edus=[poll, {"edu_type": "m.presence_invite", "content": asks}])

    async def told() -> bool:
        edus = [edu for body in green.received for edu in body.get("edus", [])]
        kinds = {edu["edu_type"]: edu["content"] for edu in edus}
        return kinds.get("m.presence_accept") == asks and (
            kinds.get("m.presence", {}).get("push", [{}])[0].get("state") == "online"
        )

    await eventually(told)
