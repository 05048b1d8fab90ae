"""Push rules. Spec: client-server API, "Push Rules: API"."""

from functools import partial
from typing import Final

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import InvalidParam, NotFound
from ranvier.core.push import edit
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.push.rules import PushRules

_RULE: Final = "/_matrix/client/v3/pushrules/global/{kind}/{ruleId}"
_RULE_BYTES: Final = 131_072
"""Of one rule in a request: 50 conditions with the longest patterns and more."""


class PushRuleEndpoints:
    """A user's rules: all, one, its state, its actions."""

    def __init__(self, rules: PushRules) -> None:
        self._rules = rules

    @endpoint(
        "GET",
        "/_matrix/client/v3/pushrules/",
        "/_matrix/client/v3/pushrules",
        operation="getPushRules",
    )
    async def get_push_rules(self, request: Request) -> JsonObject:
        return await self._rules.all_rules(request.requester)

    @endpoint(
        "GET",
        "/_matrix/client/v3/pushrules/global/",
        "/_matrix/client/v3/pushrules/global",
        operation="getPushRulesGlobal",
    )
    async def get_global_push_rules(self, request: Request) -> JsonObject:
        rules = await self._rules.all_rules(request.requester)
        return dict(rules["global"])

    @endpoint("GET", _RULE, operation="getPushRule")
    async def get_push_rule(self, request: Request) -> JsonObject:
        return await self._rule(request)

    @endpoint("PUT", _RULE, operation="setPushRule", rate=Rate.WRITE, max_body_bytes=_RULE_BYTES)
    async def set_push_rule(self, request: Request) -> JsonObject:
        kind = edit.parse_kind(request.path["kind"])
        rule = edit.parse_rule(kind, _rule_id(request), request.json())
        query = request.query()
        change = partial(
            edit.put_rule, kind=kind, rule=rule, before=query.text("before"), after=query.text("after")
        )
        await self._rules.change(request.requester, change)
        return {}

    @endpoint("DELETE", _RULE, operation="deletePushRule", rate=Rate.WRITE)
    async def delete_push_rule(self, request: Request) -> JsonObject:
        kind = edit.parse_kind(request.path["kind"])
        change = partial(edit.delete_rule, kind=kind, rule_id=_rule_id(request))
        await self._rules.change(request.requester, change)
        return {}

    @endpoint("GET", f"{_RULE}/enabled", operation="isPushRuleEnabled")
    async def is_push_rule_enabled(self, request: Request) -> JsonObject:
        rule = await self._rule(request)
        return {"enabled": rule["enabled"]}

    @endpoint("PUT", f"{_RULE}/enabled", operation="setPushRuleEnabled", rate=Rate.WRITE)
    async def set_push_rule_enabled(self, request: Request) -> JsonObject:
        kind = edit.parse_kind(request.path["kind"])
        enabled = edit.parse_enabled(request.json())
        change = partial(edit.set_enabled, kind=kind, rule_id=_rule_id(request), enabled=enabled)
        await self._rules.change(request.requester, change)
        return {}

    @endpoint("GET", f"{_RULE}/actions", operation="getPushRuleActions")
    async def get_push_rule_actions(self, request: Request) -> JsonObject:
        rule = await self._rule(request)
        return {"actions": rule["actions"]}

    @endpoint("PUT", f"{_RULE}/actions", operation="setPushRuleActions", rate=Rate.WRITE)
    async def set_push_rule_actions(self, request: Request) -> JsonObject:
        kind = edit.parse_kind(request.path["kind"])
        actions = edit.parse_actions(request.json())
        change = partial(edit.set_actions, kind=kind, rule_id=_rule_id(request), actions=actions)
        await self._rules.change(request.requester, change)
        return {}

    async def _rule(self, request: Request) -> JsonObject:
        try:
            kind = edit.parse_kind(request.path["kind"])
        except InvalidParam as error:
            # Clients ask so whether there are rules of a kind that some servers have and others do not.
            raise NotFound("There is no rule of this kind.") from error
        return await self._rules.rule(request.requester, kind, request.path["ruleId"])


def _rule_id(request: Request) -> str:
    rule_id = request.path["ruleId"]
    if "\0" in rule_id:
        raise InvalidParam("A rule id has no NUL.")
    return rule_id
