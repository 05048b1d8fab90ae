"""The rule on invitations that accept a third-party invite: an identity server's key vouches for the target.

Spec: rooms/v1.md, rule 5.3.1; client-server API, "Third-party invites".
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from ranvier.core.auth.state import AuthState
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import AuthRejected, BadJson, BadSignature
from ranvier.core.events.pdu import Pdu
from ranvier.core.signing import ALGORITHM, VerifyKey, parse_signature, parse_verify_key, signed_bytes

MAX_VERIFICATIONS: Final = 64
"""How many pairs of a signature and a key are tried. An honest invite has one signature and one or two keys;
without a bound, a single event could make every server of the room verify tens of thousands."""


def check_third_party_invite(event: Pdu, target: str, room: AuthState, number: str) -> None:
    """Check an invite whose content has `third_party_invite`; `number` is that of this sub-rule.

    Raises: AuthRejected.
    """
    # .1
    if room.membership(target) == "ban":
        raise AuthRejected(f"{number}.1", "the target is banned")
    # .2
    third_party_invite = event.content["third_party_invite"]
    signed = third_party_invite.get("signed") if isinstance(third_party_invite, dict) else None
    if not isinstance(signed, dict):
        raise AuthRejected(f"{number}.2", "the third-party invite is not signed")
    # .3
    mxid, token = signed.get("mxid"), signed.get("token")
    if not isinstance(mxid, str) or not isinstance(token, str):
        raise AuthRejected(f"{number}.3", "what is signed lacks mxid or token")
    # .4
    if mxid != target:
        raise AuthRejected(f"{number}.4", "what is signed is for somebody else")
    # .5
    offer = room.lookup("m.room.third_party_invite", token)
    if offer is None:
        raise AuthRejected(f"{number}.5", "the room holds no third-party invite with this token")
    # .6
    if event.sender != offer.sender:
        raise AuthRejected(f"{number}.6", "the sender did not make the third-party invite")
    # .7 and .8
    if not is_signed_by_any(signed, offer.content):
        raise AuthRejected(f"{number}.8", "no key of the third-party invite signed this")


def is_signed_by_any(signed: JsonObject, offer: JsonObject) -> bool:
    """Whether any signature in `signed` verifies with any key in the content of m.room.third_party_invite."""
    try:
        message = signed_bytes(signed)
    except BadJson:
        return False
    keys = dict.fromkeys(_iter_keys(offer))
    pairs = ((key, signature) for signature in _iter_signatures(signed) for key in keys)
    return any(_verifies(key, message, signature) for key, signature in islice(pairs, MAX_VERIFICATIONS))


def _iter_keys(offer: JsonObject) -> Iterator[VerifyKey]:
    # .7.1 and .7.2
    entries = offer.get("public_keys")
    listed = (
        [entry.get("public_key") for entry in entries if isinstance(entry, dict)]
        if isinstance(entries, list)
        else []
    )
    for text in (offer.get("public_key"), *listed):
        try:
            yield parse_verify_key(text)
        except BadSignature:
            continue


def _iter_signatures(signed: JsonObject) -> Iterator[bytes]:
    by_server = signed.get("signatures")
    for by_key in by_server.values() if isinstance(by_server, dict) else ():
        for key_id, text in by_key.items() if isinstance(by_key, dict) else ():
            try:
                if key_id.startswith(f"{ALGORITHM}:"):
                    yield parse_signature(text)
            except BadSignature:
                continue


def _verifies(key: VerifyKey, message: bytes, signature: bytes) -> bool:
    try:
        key.verify(message, signature)
    except BadSignature:
        return False
    return True
