"""The push rule endpoints: what clients set is what they get, and what applies stands in m.push_rules."""

import pytest

from .client import segment
from .homeserver import User

RULES = "/_matrix/client/v3/pushrules"
GLOBAL = f"{RULES}/global"


async def rule_ids(user: User, kind: str) -> list[str]:
    answer = await user.get(f"{GLOBAL}/")
    return [rule["rule_id"] for rule in answer.json[kind] if not rule["default"]]


async def test_everybody_has_the_default_rules(alice):
    whole = (await alice.get(f"{RULES}/")).json
    assert whole.keys() == {"global"}
    assert whole["global"].keys() == {"override", "content", "room", "sender", "underride"}
    assert whole["global"] == (await alice.get(f"{GLOBAL}/")).json
    assert whole["global"]["override"][0]["rule_id"] == ".m.rule.master"
    mention = (await alice.get(f"{GLOBAL}/override/.m.rule.is_user_mention")).json
    assert mention["conditions"][0]["value"] == alice.user_id
    assert (mention["enabled"], mention["default"]) == (True, True)


async def test_own_rules_have_their_order(alice):
    for name in ("one", "two"):
        await alice.put(f"{GLOBAL}/content/{name}", {"pattern": name, "actions": ["notify"]})
    assert await rule_ids(alice, "content") == ["two", "one"]
    body = {"pattern": "three", "actions": []}
    assert (await alice.put(f"{GLOBAL}/content/three", body, after="two")).json == {}
    assert (await alice.put(f"{GLOBAL}/content/four", body, before="two")).json == {}
    assert await rule_ids(alice, "content") == ["four", "two", "three", "one"]
    lost = await alice.put(f"{GLOBAL}/content/five", body, before="nothing")
    assert (lost.status, lost.errcode) == (400, "M_UNKNOWN")
    assert (await alice.delete(f"{GLOBAL}/content/two")).json == {}
    assert await rule_ids(alice, "content") == ["four", "three", "one"]
    assert (await alice.delete(f"{GLOBAL}/content/two")).errcode == "M_NOT_FOUND"


async def test_rules_are_changed_in_part(alice):
    path = f"{GLOBAL}/room/{segment('!room:test')}"
    await alice.put(path, {"actions": ["notify"]})
    assert (await alice.get(f"{path}/enabled")).json == {"enabled": True}
    assert (await alice.put(f"{path}/enabled", {"enabled": False})).json == {}
    assert (await alice.put(f"{path}/actions", {"actions": ["notify", {"set_tweak": "sound"}]})).json == {}
    assert (await alice.get(f"{path}/actions")).json == {"actions": ["notify", {"set_tweak": "sound"}]}
    assert (await alice.get(path)).json == {
        "rule_id": "!room:test",
        "actions": ["notify", {"set_tweak": "sound"}],
        "default": False,
        "enabled": False,
    }
    default = f"{GLOBAL}/underride/.m.rule.message"
    assert (await alice.put(f"{default}/actions", {"actions": []})).json == {}
    assert (await alice.get(f"{default}/actions")).json == {"actions": []}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "errcode"),
    [
        ("PUT", "content/.mine", {"pattern": "x", "actions": []}, 400, "M_INVALID_PARAM"),
        ("PUT", f"content/{segment('a/b')}", {"pattern": "x", "actions": []}, 400, "M_INVALID_PARAM"),
        ("PUT", "content/x", {"actions": []}, 400, "M_MISSING_PARAM"),
        ("PUT", "content/x", {"pattern": "x"}, 400, "M_MISSING_PARAM"),
        ("PUT", "content/x", {"pattern": "x", "actions": ["shout"]}, 400, "M_BAD_JSON"),
        ("PUT", "nonsense/x", {"actions": []}, 400, "M_INVALID_PARAM"),
        ("GET", "content/x", None, 404, "M_NOT_FOUND"),
        ("GET", "content/x/enabled", None, 404, "M_NOT_FOUND"),
        ("GET", "content/x/actions", None, 404, "M_NOT_FOUND"),
        ("GET", "nonsense/x", None, 404, "M_NOT_FOUND"),
        ("PUT", "content/x/enabled", {"enabled": True}, 404, "M_NOT_FOUND"),
        ("PUT", "content/x/enabled", {"enabled": 1}, 400, "M_BAD_JSON"),
        ("PUT", "content/x/actions", {"actions": []}, 404, "M_NOT_FOUND"),
        ("PUT", "content/x/actions", {}, 400, "M_MISSING_PARAM"),
        ("DELETE", "override/.m.rule.master", None, 404, "M_NOT_FOUND"),
        ("DELETE", "content/x", None, 404, "M_NOT_FOUND"),
    ],
)
async def test_what_is_refused(alice, method, path, body, status, errcode):
    answer = await alice.request(method, f"{GLOBAL}/{path}", json=body)
    assert (answer.status, answer.errcode) == (status, errcode)
    assert (await alice.as_user("wrong").request(method, f"{GLOBAL}/{path}", json=body)).status == 401


async def test_a_change_reaches_other_devices(homeserver, alice):
    since = (await alice.get("/_matrix/client/v3/sync")).json["next_batch"]
    await alice.put(f"{GLOBAL}/override/.m.rule.master/enabled", {"enabled": True})
    events = (await alice.get("/_matrix/client/v3/sync", since=since)).json["account_data"]["events"]
    assert [event["type"] for event in events] == ["m.push_rules"]
    assert events[0]["content"] == (await alice.get(f"{RULES}/")).json
