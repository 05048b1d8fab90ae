"""Sessions: a device with an access token, which is what a login makes.

Spec: client-server API, "Relationship between access tokens and devices", "Refreshing access tokens".
"""

from typing import Final

import msgspec

from ranvier.core.errors import Forbidden, InvalidParam
from ranvier.core.identifiers import DeviceID, UserID, parse_device_id
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables.cross_signing import list_cross_signing_keys
from ranvier.store.tables.devices import find_device, insert_device
from ranvier.store.tables.oauth_grants import delete_grant
from ranvier.store.tables.tokens import NewToken, delete_tokens_of_device, hash_token, insert_token

ACCESS_LIFETIME_MS: Final = 15 * 60_000
"""Of an access token that can be refreshed; others do not expire."""
DEVICE_ID_CHARS: Final = 10
MAX_DEVICE_NAME_CHARS: Final = 100
_DEVICE_ID_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class SessionWish(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks of the session that it gets."""

    device_id: str | None = None
    initial_device_display_name: str | None = None
    refresh_token: bool = False


class Session(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a client gets. The tokens themselves stand here and nowhere else."""

    user_id: UserID
    device_id: DeviceID | None = None
    access_token: str | None = None
    refresh_token: str | None = None
    expires_in_ms: int | None = None


class SessionDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A session before it is written: secrets and names are chosen, so that writing may be repeated."""

    device_id: DeviceID
    display_name: str | None
    tokens: "DraftedTokens"

    def of(self, user_id: UserID) -> Session:
        """What the client is told once the draft is written."""
        return Session(
            user_id=user_id,
            device_id=self.device_id,
            access_token=self.tokens.access,
            refresh_token=self.tokens.refresh,
            expires_in_ms=self.tokens.expires_in_ms,
        )


class DraftedTokens(msgspec.Struct, frozen=True, kw_only=True):
    """An access token, with or without a refresh token, and what is stored of them."""

    access: str
    stored: NewToken
    refresh: str | None = None
    expires_in_ms: int | None = None


class SessionDrafts:
    """Makes up sessions."""

    def __init__(self, clock: Clock, randomness: Randomness) -> None:
        self._clock = clock
        self._randomness = randomness

    def draft(self, wish: SessionWish) -> SessionDraft:
        """Raises: BadIdentifier, InvalidParam: the client's device id or name cannot be used."""
        device_id = (
            DeviceID(self._randomness.text(DEVICE_ID_CHARS, _DEVICE_ID_ALPHABET))
            if wish.device_id is None
            else parse_device_id(wish.device_id)
        )
        check_device_name(wish.initial_device_display_name)
        return SessionDraft(
            device_id=device_id,
            display_name=wish.initial_device_display_name,
            tokens=self.refreshable_tokens() if wish.refresh_token else self.lasting_tokens(),
        )

    def lasting_tokens(self) -> DraftedTokens:
        """An access token that does not expire, for clients that cannot refresh theirs."""
        access = self._randomness.token()
        stored = NewToken(access_hash=hash_token(access), created_ms=self._clock.now_ms())
        return DraftedTokens(access=access, stored=stored)

    def refreshable_tokens(self, family: str = "") -> DraftedTokens:
        """An access token that expires, and what it is refreshed with, which begins with `family`."""
        now_ms = self._clock.now_ms()
        access, refresh = self._randomness.token(), family + self._randomness.token()
        stored = NewToken(
            access_hash=hash_token(access),
            created_ms=now_ms,
            expires_ms=now_ms + ACCESS_LIFETIME_MS,
            refresh_hash=hash_token(refresh),
        )
        return DraftedTokens(access=access, stored=stored, refresh=refresh, expires_in_ms=ACCESS_LIFETIME_MS)


def open_session(txn: WriteTxn, user_nid: int, draft: SessionDraft) -> int:
    """Write a session; its device_nid. On a device that exists, it replaces the one before; the device keeps its name.

    Raises: Forbidden: the device id is that of a cross-signing key.
    Effects: devices, tokens.
    """
    device = find_device(txn, user_nid, draft.device_id)
    if device is None:
        _check_is_no_key(txn, user_nid, draft.device_id)
        device_nid = insert_device(
            txn, user_nid, draft.device_id, draft.display_name, draft.tokens.stored.created_ms
        )
    else:
        device_nid = device.device_nid
        delete_tokens_of_device(txn, device_nid)
        delete_grant(txn, device_nid)
    insert_token(txn, user_nid, device_nid, draft.tokens.stored)
    return device_nid


def _check_is_no_key(txn: ReadTxn, user_nid: int, device_id: DeviceID) -> None:
    # Signatures name devices and cross-signing keys alike: one name must not mean both.
    keys = list_cross_signing_keys(txn, [user_nid])[user_nid]
    if any(key.public_key == device_id for key in keys.values()):
        raise Forbidden("This device id is that of a cross-signing key.")


def check_device_name(name: str | None) -> None:
    """Raises: InvalidParam."""
    if name is not None and (len(name) > MAX_DEVICE_NAME_CHARS or "\0" in name):
        raise InvalidParam(f"A device name has at most {MAX_DEVICE_NAME_CHARS} characters.")
