"""The rule on m.room.member: joining, inviting, leaving, banning, knocking.

Comments give the sub-rules as v12 counts them, within the rule on members (5 in v1 to v5 and v12, else 4).
"""

from ranvier.core.auth.numbering import numbering_of
from ranvier.core.auth.state import AuthState
from ranvier.core.auth.third_party import check_third_party_invite
from ranvier.core.errors import AuthRejected
from ranvier.core.events.pdu import Pdu


def check_member(event: Pdu, room: AuthState) -> None:
    """Raises: AuthRejected."""
    numbers = numbering_of(room.version.auth)
    # .1
    if event.state_key is None or "membership" not in event.content:
        raise AuthRejected(f"{numbers.member}.1", "a member event needs a state_key and a membership")
    # SPEC: no rule asks that the target be a user id, but no peer accepts a member event for anything else.
    if not event.state_key.startswith("@") or ":" not in event.state_key:
        raise AuthRejected(f"{numbers.member}.1", "the state_key is no user id")
    # .2, since v8
    if room.version.auth.restricted and "join_authorised_via_users_server" in event.content:
        _check_authorising_signature(event, numbers.join_signed)
    membership = event.content["membership"]
    if membership == "join":
        _check_join(event, event.state_key, room)
    elif membership == "invite":
        _check_invite(event, event.state_key, room)
    elif membership == "leave":
        _check_leave(event, event.state_key, room)
    elif membership == "ban":
        _check_ban(event, event.state_key, room)
    elif membership == "knock" and room.version.auth.knock:
        _check_knock(event, event.state_key, room)
    else:
        raise AuthRejected(numbers.membership_unknown, "unknown membership")


def _check_authorising_signature(event: Pdu, number: str) -> None:
    """Ask only that the server signed. That its signature is good was verified on receipt, where the keys
    are: `events.parse` counts this server among those that must have signed."""
    # .2.1
    authorising_user = event.content["join_authorised_via_users_server"]
    server = authorising_user.partition(":")[2] if isinstance(authorising_user, str) else ""
    if not server or not event.signatures.get(server):
        raise AuthRejected(f"{number}.1", "the authorising user's server has not signed")


def _check_join(event: Pdu, target: str, room: AuthState) -> None:
    number = numbering_of(room.version.auth).join
    # .3.1
    if event.prev_events == (room.create.event_id,) and target == _first_joiner(room):
        return
    # .3.2
    if event.sender != target:
        raise AuthRejected(f"{number}.2", "nobody can join for somebody else")
    membership = room.membership(target)
    # .3.3
    if membership == "ban":
        raise AuthRejected(f"{number}.3", "the sender is banned")
    _check_join_rule(event, membership, room)


def _first_joiner(room: AuthState) -> object:
    # Since v11 the create event's sender alone: additional creators of v12 have to be invited.
    if room.version.auth.creator_in_content:
        return room.create.content.get("creator")
    return room.create.sender


def _check_join_rule(event: Pdu, membership: object, room: AuthState) -> None:
    rules = room.version.auth
    join_rule = room.join_rule()
    # .3.6
    if join_rule == "public":
        return
    # .3.4; since v7 also for knock
    if join_rule == "invite" or (join_rule == "knock" and rules.knock):
        if membership in ("invite", "join"):
            return
    # .3.5, since v8; knock_restricted since v10
    elif (join_rule == "restricted" and rules.restricted) or (
        join_rule == "knock_restricted" and rules.knock_restricted
    ):
        # .3.5.1
        if membership not in ("join", "invite"):
            _check_authorising_user(event, room)
        return
    # .3.7
    raise AuthRejected(numbering_of(rules).join_otherwise, "the join rule does not let the sender in")


def _check_authorising_user(event: Pdu, room: AuthState) -> None:
    # .3.5.2
    user = event.content.get("join_authorised_via_users_server")
    if (
        not isinstance(user, str)
        or room.membership(user) != "join"
        or room.power.user_level(user) < room.power.invite
    ):
        number = numbering_of(room.version.auth).join_restricted
        raise AuthRejected(f"{number}.2", "no joined member who may invite authorised this join")


def _check_invite(event: Pdu, target: str, room: AuthState) -> None:
    number = numbering_of(room.version.auth).invite
    # .4.1
    if "third_party_invite" in event.content:
        check_third_party_invite(event, target, room, f"{number}.1")
        return
    # .4.2
    if room.membership(event.sender) != "join":
        raise AuthRejected(f"{number}.2", "the sender is not joined")
    # .4.3
    if room.membership(target) in ("join", "ban"):
        raise AuthRejected(f"{number}.3", "the target is joined or banned")
    # .4.4 and .4.5
    if room.power.user_level(event.sender) < room.power.invite:
        raise AuthRejected(f"{number}.5", "the sender may not invite")


def _check_leave(event: Pdu, target: str, room: AuthState) -> None:
    rules = room.version.auth
    number = numbering_of(rules).leave
    sender_membership = room.membership(event.sender)
    # .5.1; knock since v7
    if event.sender == target:
        if sender_membership in ("invite", "join") or (sender_membership == "knock" and rules.knock):
            return
        raise AuthRejected(f"{number}.1", "the sender is not in the room, nor about to be")
    # .5.2
    if sender_membership != "join":
        raise AuthRejected(f"{number}.2", "the sender is not joined")
    sender_level = room.power.user_level(event.sender)
    # .5.3
    if room.membership(target) == "ban" and sender_level < room.power.ban:
        raise AuthRejected(f"{number}.3", "the sender may not lift bans")
    # .5.4 and .5.5
    if sender_level < room.power.kick or sender_level <= room.power.user_level(target):
        raise AuthRejected(f"{number}.5", "the sender may not kick the target")


def _check_ban(event: Pdu, target: str, room: AuthState) -> None:
    number = numbering_of(room.version.auth).ban
    # .6.1
    if room.membership(event.sender) != "join":
        raise AuthRejected(f"{number}.1", "the sender is not joined")
    # .6.2 and .6.3
    sender_level = room.power.user_level(event.sender)
    if sender_level < room.power.ban or sender_level <= room.power.user_level(target):
        raise AuthRejected(f"{number}.3", "the sender may not ban the target")


def _check_knock(event: Pdu, target: str, room: AuthState) -> None:
    rules = room.version.auth
    number = numbering_of(rules).knock
    join_rule = room.join_rule()
    # .7.1, since v7; knock_restricted since v10
    if join_rule != "knock" and not (join_rule == "knock_restricted" and rules.knock_restricted):
        raise AuthRejected(f"{number}.1", "the join rule does not allow knocking")
    # .7.2
    if event.sender != target:
        raise AuthRejected(f"{number}.2", "nobody can knock for somebody else")
    # .7.3 and .7.4
    if room.membership(target) in ("ban", "invite", "join"):
        raise AuthRejected(f"{number}.4", "the sender is joined, invited or banned")
