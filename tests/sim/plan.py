"""What is going to happen: made from the seed at once, so that a part of it can be tried alone."""

import random

import msgspec

SERVERS = ("one", "two", "three", "four")


class Action(msgspec.Struct, frozen=True):
    """Something that a user, the network, an administrator or the forger does. Its own number decides the
    particulars, so that they stay the same when others are left out."""

    number: int
    wait_ms: int  # after the one before
    kind: str


class Plan(msgspec.Struct, frozen=True):
    seed: int
    servers: tuple[str, ...]
    late: tuple[str, ...]  # those of the servers that are not there when the rooms are founded
    has_notary: bool  # all trust the first server for the keys of others
    versions: tuple[str, ...]  # of the rooms
    has_forger: bool
    actions: tuple[Action, ...]
    omits_members: bool = True  # whether servers enter rooms with states that lack members

    def keep(self, numbers: frozenset[int]) -> "Plan":
        """The same with some of the actions alone."""
        return msgspec.structs.replace(
            self, actions=tuple(one for one in self.actions if one.number in numbers)
        )


USERS = {
    "message": 24,
    "topic": 5,
    "name": 4,
    "power_levels": 6,
    "join_rules": 5,
    "history_visibility": 4,
    "ban": 3,
    "unban": 3,
    "kick": 3,
    "invite": 4,
    "leave": 4,
    "join": 9,
    "knock": 1,
    "redaction": 4,
    "alias": 2,
    "upgrade": 1,
    "receipt": 3,
    "typing": 2,
    "to_device": 5,
    "read_back": 3,
}
FAULTS = {
    "crash": 3,
    "crash_before_commit": 2,
    "crash_after_commit": 3,
    "restart": 2,
    "isolate": 3,
    "cut": 3,
    "heal": 5,
    "weather": 5,
    "pass_time": 2,
}
TRAVELS = {
    "depart": 3,
    "return": 5,
    "rotate_key": 1,
    "perish": 1,
}
FORGERY = {
    "forge_valid": 4,
    "forge_state": 3,
    "forge_equivocation": 3,
    "forge_withheld": 3,
    "forge_sender": 1,
    "forge_hash": 1,
    "forge_signature": 1,
    "forge_rejected": 3,
    "forge_old_levels": 3,
    "forge_old_join": 2,
    "forge_deep": 1,
    "forge_unknown_parent": 1,
    "forge_replay": 2,
    "forge_reveal": 2,
}
VERSIONS = ("12", "11", "10", "6", "3", "12")


def make_plan(seed: int, *, steps: int = 70) -> Plan:
    rng = random.Random(f"plan {seed}")
    servers = SERVERS[: rng.choice((2, 3, 3, 3, 4))]
    has_forger = rng.random() < 0.6
    late = servers[-1:] if len(servers) > 2 and rng.random() < 0.5 else ()
    has_notary = rng.random() < 0.3
    weights = USERS | FAULTS | TRAVELS | (FORGERY if has_forger else {})
    if late and not has_notary:
        # Who comes when a server is gone can never check what that one said, unless somebody is trusted.
        del weights["perish"]
    if rng.random() < 0.2:
        weights = {kind: weight for kind, weight in weights.items() if kind not in FAULTS}
    kinds = rng.choices(list(weights), list(weights.values()), k=steps)
    pace_ms = rng.choice((5, 100, 1000))
    actions = tuple(
        Action(number, round(rng.expovariate(1) * pace_ms), kind) for number, kind in enumerate(kinds)
    )
    versions = tuple(rng.choice(VERSIONS) for _ in range(rng.choice((1, 1, 2))))
    omits_members = random.Random(f"joins {seed}").random() < 0.7
    return Plan(seed, servers, late, has_notary, versions, has_forger, actions, omits_members)
