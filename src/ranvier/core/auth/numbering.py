"""Where each authorization rule stands in a room version's text, so that a rejection can name it.

The rules are the same sentences in every version; what a version adds or drops moves the ones behind it.
Only the numbers that move are kept here; a checker appends the sub-rule that it reads from the text.
"""

from functools import lru_cache

import msgspec

from ranvier.core.room_versions import AuthRules


class Numbering(msgspec.Struct, frozen=True, kw_only=True):
    """Rule numbers of one room version, as its page shows them. "-" stands for a rule it does not have."""

    room_id: str
    auth_events: str
    federate: str
    aliases: str
    member: str
    join_signed: str
    join: str
    join_restricted: str
    join_otherwise: str
    invite: str
    leave: str
    ban: str
    knock: str
    membership_unknown: str
    sender_joined: str
    third_party_invite: str
    required_level: str
    foreign_state_key: str
    levels_scalar_type: str
    levels_map_type: str
    levels_users_type: str
    levels_creators: str
    levels_scalar_change: str
    levels_map_current: str
    levels_map_new: str
    levels_users_current: str
    levels_users_new: str
    redaction: str


_ABSENT = "-"


def _number(prefix: str, rules: dict[str, bool]) -> dict[str, str]:
    """Number the rules that exist, in order, behind `prefix`."""
    numbers: dict[str, str] = {}
    position = 0
    for name, exists in rules.items():
        position += exists
        numbers[name] = f"{prefix}{position}" if exists else _ABSENT
    return numbers


@lru_cache(maxsize=64)
def numbering_of(rules: AuthRules) -> Numbering:
    """The numbers that hold under `rules`. Never raises."""
    top = _number(
        "",
        {
            "create": True,
            "room_id": rules.room_id_is_create_hash,
            "auth_events": True,
            "federate": True,
            "aliases": rules.special_aliases,
            "member": True,
            "sender_joined": True,
            "third_party_invite": True,
            "required_level": True,
            "foreign_state_key": True,
            "power_levels": True,
            "redaction": rules.redaction_needs_level,
        },
    )
    del top["create"]  # always 1
    power_levels = top.pop("power_levels")
    member = _number_member(top["member"], rules)
    return Numbering(**top, **member, **_number_power_levels(power_levels, rules))


def _number_member(member: str, rules: AuthRules) -> dict[str, str]:
    numbers = _number(
        f"{member}.",
        {
            "shape": True,
            "join_signed": rules.restricted,
            "join": True,
            "invite": True,
            "leave": True,
            "ban": True,
            "knock": rules.knock,
            "membership_unknown": True,
        },
    )
    del numbers["shape"]
    numbers["join_restricted"] = f"{numbers['join']}.5" if rules.restricted else _ABSENT
    numbers["join_otherwise"] = f"{numbers['join']}.{7 if rules.restricted else 6}"
    return numbers


def _number_power_levels(power_levels: str, rules: AuthRules) -> dict[str, str]:
    numbers = _number(
        f"{power_levels}.",
        {
            "levels_scalar_type": rules.integer_power_levels,
            "levels_map_type": rules.integer_power_levels,
            "levels_users_type": True,
            "levels_creators": rules.privileged_creators,
            "levels_initial": True,
            "levels_scalar_change": True,
            "levels_map_current": True,
            "levels_map_new": True,
            "levels_users_current": True,
            "levels_users_new": True,
        },
    )
    del numbers["levels_initial"]
    return numbers
