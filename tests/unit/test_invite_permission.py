"""Who may invite: the account data of v1.18 and of MSC4155."""

import pytest

from ranvier.core.identifiers import UserID
from ranvier.core.invite_permission import FILTERING, PERMISSION, Verdict, parse_invite_permission

ALLOW, IGNORE, BLOCK = Verdict.ALLOW, Verdict.IGNORE, Verdict.BLOCK


@pytest.mark.parametrize(
    ("filtering", "bob", "mallory"),
    [
        ({}, ALLOW, ALLOW),
        ({"blocked_users": ["@bob:good"]}, BLOCK, ALLOW),
        ({"ignored_users": ["@m*:evil"]}, ALLOW, IGNORE),
        ({"blocked_users": ["@?ob:*"]}, BLOCK, ALLOW),
        ({"blocked_servers": ["evil"]}, ALLOW, BLOCK),
        ({"ignored_servers": ["*"]}, IGNORE, IGNORE),
        ({"allowed_users": ["@bob:good"], "blocked_servers": ["*"]}, ALLOW, BLOCK),
        ({"allowed_servers": ["*"], "blocked_users": ["@mallory:evil"]}, ALLOW, BLOCK),
        ({"allowed_users": ["*"], "ignored_users": ["*"], "blocked_users": ["*"]}, ALLOW, ALLOW),
        ({"ignored_users": ["*"], "blocked_users": ["*"]}, IGNORE, IGNORE),
        ({"blocked_users": None, "blocked_servers": "*", "ignored_users": [1, "", "*" * 256]}, ALLOW, ALLOW),
    ],
)
def test_rules(filtering, bob, mallory):
    permission = parse_invite_permission({FILTERING: filtering})
    assert permission.decide(UserID("@bob:good")) is bob
    assert permission.decide(UserID("@mallory:evil")) is mallory


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        ({"default_action": "block"}, BLOCK),
        ({"default_action": "allow"}, ALLOW),
        ({"default_action": ["block"]}, ALLOW),
        ({}, ALLOW),
    ],
)
def test_default_action(content, verdict):
    assert parse_invite_permission({PERMISSION: content}).decide(UserID("@bob:good")) is verdict
    both = {PERMISSION: content, FILTERING: {"allowed_users": ["*"]}}
    assert parse_invite_permission(both).decide(UserID("@bob:good")) is verdict
