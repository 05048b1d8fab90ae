"""The token endpoint: codes and refresh tokens become tokens.

Spec: client-server API, "Grant types"; RFC 6749, 4.1.3 and 6; RFC 8628, 3.4 and 3.5.
"""

import logging
from typing import Final

import msgspec

from ranvier.core.errors import MatrixError
from ranvier.core.identifiers import DeviceID
from ranvier.core.oauth.client_metadata import Client
from ranvier.core.oauth.pkce import is_verified
from ranvier.core.oauth.refusals import OAuthRefusal, invalid_grant
from ranvier.core.oauth.scopes import is_within, parse_scope
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.services.accounts.sessions import (
    MAX_DEVICE_NAME_CHARS,
    DraftedTokens,
    SessionDraft,
    SessionDrafts,
    open_session,
)
from ranvier.services.oauth.clients import decode_client
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.accounts import find_account
from ranvier.store.tables.devices import delete_devices, find_device
from ranvier.store.tables.oauth_clients import find_oauth_client, touch_oauth_client
from ranvier.store.tables.oauth_codes import note_exchange, use_code
from ranvier.store.tables.oauth_device_codes import (
    Decision,
    delete_device_code,
    find_device_code,
    note_poll,
)
from ranvier.store.tables.oauth_grants import (
    Grant,
    find_grant_of_family,
    find_grant_of_refresh_token,
    find_owner,
    set_grant,
)
from ranvier.store.tables.tokens import hash_token, refresh_token

log = logging.getLogger(__name__)

FAMILY_BYTES: Final = 18
"""Of the part that all refresh tokens of a session begin with: 24 characters of base64."""
SEPARATOR: Final = "."
EARLY_MS: Final = 500
"""So much too early a device may poll: clocks and networks are not exact."""
SLOWER_S: Final = 5
MAX_INTERVAL_S: Final = 120


class Granted(msgspec.Struct, frozen=True):
    """What the client gets. Spec: RFC 6749, 5.1."""

    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str
    scope: str


class CodeProof(msgspec.Struct, frozen=True):
    """What a client shows with a code."""

    client_id: str
    redirect_uri: str
    code_verifier: str


class OAuthTokens:
    """Gives them out."""

    def __init__(self, db: Database, clock: Clock, randomness: Randomness, drafts: SessionDrafts) -> None:
        self._db = db
        self._clock = clock
        self._randomness = randomness
        self._drafts = drafts

    async def by_code(self, code: str, proof: CodeProof) -> Granted:
        """A code is good for one attempt. Raises: OAuthRefusal."""
        draft = self._draft()
        outcome = await self._db.write(_exchange, hash_token(code), proof, draft, self._clock.now_ms())
        return _granted(outcome, draft)

    async def by_device_code(self, device_code: str, client_id: str) -> Granted:
        """Raises: OAuthRefusal, also while the person has not decided yet."""
        draft = self._draft()
        outcome = await self._db.write(
            _exchange_device_code, hash_token(device_code), client_id, draft, self._clock.now_ms()
        )
        return _granted(outcome, draft)

    async def by_refresh_token(self, token: str, client_id: str, scope: str | None) -> Granted:
        """The old pair is good until the new one is used. Raises: OAuthRefusal."""
        family = token.partition(SEPARATOR)[0]
        draft = _Draft(family, self._drafts.refreshable_tokens(f"{family}{SEPARATOR}"))
        outcome = await self._db.write(_refresh, hash_token(token), client_id, scope, draft)
        return _granted(outcome, draft)

    def _draft(self) -> "_Draft":
        family = self._randomness.token(FAMILY_BYTES)
        return _Draft(family, self._drafts.refreshable_tokens(f"{family}{SEPARATOR}"))


class _Draft(msgspec.Struct, frozen=True):
    """Secrets are chosen before the transaction, so that it may be repeated."""

    family: str
    tokens: DraftedTokens


class _Reused(OAuthRefusal):
    """Two have what one should have: the session is over."""

    def __init__(self, description: str, device_id: DeviceID | None) -> None:
        super().__init__("invalid_grant", description)
        self.device_id = device_id


_Outcome = OAuthRefusal | str
"""A refusal, which is no exception here: what was written on the way to it has to stay; or the scope."""


def _granted(outcome: _Outcome, draft: _Draft) -> Granted:
    if isinstance(outcome, _Reused) and outcome.device_id is not None:
        log.warning(
            "device %s is signed out: a code or refresh token of it was used twice", outcome.device_id
        )
    if isinstance(outcome, OAuthRefusal):
        raise outcome
    tokens = draft.tokens
    if tokens.refresh is None or tokens.expires_in_ms is None:
        raise TypeError("tokens that can be refreshed expire")
    return Granted(tokens.access, "Bearer", tokens.expires_in_ms // 1000, tokens.refresh, outcome)


def _exchange(txn: WriteTxn, code_hash: bytes, proof: CodeProof, draft: _Draft, now_ms: int) -> _Outcome:
    code = use_code(txn, code_hash)
    if code is None:
        return invalid_grant("This code is unknown or expired.")
    if code.is_used:
        # RFC 6749, 4.1.2: two have the code, and one of them should not.
        return _Reused("This code was used already.", _end_session(txn, code.device_nid))
    if code.client_id != proof.client_id:
        return invalid_grant("This code is another client's.")
    if code.expires_ms <= now_ms:
        return invalid_grant("This code is unknown or expired.")
    if code.redirect_uri != proof.redirect_uri:
        return invalid_grant("This is not the redirect_uri that the code was asked for with.")
    if not is_verified(code.code_challenge, proof.code_verifier):
        return invalid_grant("The code_verifier is not the one behind the code_challenge.")
    opened = _open(txn, code.client_id, code.user_nid, code.scope, draft)
    if isinstance(opened, OAuthRefusal):
        return opened
    note_exchange(txn, code_hash, opened)
    return code.scope


def _exchange_device_code(
    txn: WriteTxn, code_hash: bytes, client_id: str, draft: _Draft, now_ms: int
) -> _Outcome:
    waiting = find_device_code(txn, code_hash)
    if waiting is None or waiting.client_id != client_id:
        return invalid_grant("This device code is unknown, used, or another client's.")
    if waiting.expires_ms <= now_ms:
        return OAuthRefusal("expired_token", "This device code has expired.")
    interval_s = waiting.interval_s
    is_early = waiting.polled_ms is not None and waiting.polled_ms + interval_s * 1000 - EARLY_MS > now_ms
    match waiting.state:
        case Decision.DENIED:
            delete_device_code(txn, code_hash)
            return OAuthRefusal("access_denied", "The person did not agree.")
        case Decision.ALLOWED if waiting.user_nid is not None:
            delete_device_code(txn, code_hash)
            opened = _open(txn, client_id, waiting.user_nid, waiting.scope, draft)
            return opened if isinstance(opened, OAuthRefusal) else waiting.scope
        case _ if is_early:
            note_poll(txn, code_hash, min(interval_s + SLOWER_S, MAX_INTERVAL_S), now_ms)
            return OAuthRefusal("slow_down", "Ask five seconds less often.")
        case _:
            note_poll(txn, code_hash, interval_s, now_ms)
            return OAuthRefusal("authorization_pending", "The person has not decided yet.")


def _refresh(
    txn: WriteTxn, refresh_hash: bytes, client_id: str, scope: str | None, draft: _Draft
) -> _Outcome:
    grant = find_grant_of_refresh_token(txn, refresh_hash)
    if grant is None:
        # A token of this session that is not good any more: it was copied, or has been.
        spent = find_grant_of_family(txn, hash_token(draft.family))
        ended = _end_session(txn, None if spent is None else spent.device_nid)
        return _Reused("This refresh token is unknown, used already, or its session is over.", ended)
    if grant.client_id != client_id:
        return invalid_grant("This refresh token is another client's.")
    if scope is not None and not is_within(scope, grant.scope):
        return OAuthRefusal("invalid_scope", "A refresh cannot ask for more than was granted.")
    # Locked accounts go on: every other endpoint says M_USER_LOCKED, and the session is there when the lock is lifted.
    if refresh_token(txn, refresh_hash, draft.tokens.stored) is None:
        return invalid_grant("This refresh token has expired.")
    return grant.scope


def _open(txn: WriteTxn, client_id: str, user_nid: int, scope: str, draft: _Draft) -> int | OAuthRefusal:
    """The session: a device, its tokens, and the grant beside it; its device_nid."""
    refusal = _check_account(txn, user_nid)
    if refusal is not None:
        return refusal
    client = _find_client(txn, client_id)
    if client is None:
        return OAuthRefusal("invalid_client", "This client is not registered here any more.")
    stored = draft.tokens.stored
    touch_oauth_client(txn, client_id, stored.created_ms)
    name = client.name[:MAX_DEVICE_NAME_CHARS]
    session = SessionDraft(device_id=parse_scope(scope).device_id, display_name=name, tokens=draft.tokens)
    try:
        device_nid = open_session(txn, user_nid, session)
    except MatrixError as error:
        return invalid_grant(error.message)
    set_grant(txn, Grant(device_nid, client_id, scope, hash_token(draft.family), stored.created_ms))
    return device_nid


def _check_account(txn: ReadTxn, user_nid: int) -> OAuthRefusal | None:
    account = find_account(txn, user_nid)
    if account is None or account.deactivated_ms is not None:
        return invalid_grant("This account is closed.")
    return invalid_grant("This account is locked.") if account.is_locked else None


def _find_client(txn: ReadTxn, client_id: str) -> Client | None:
    metadata = find_oauth_client(txn, client_id)
    return None if metadata is None else decode_client(metadata)


def _end_session(txn: WriteTxn, device_nid: int | None) -> DeviceID | None:
    """Delete a device, if it is there; what it was called."""
    owner = None if device_nid is None else find_owner(txn, device_nid)
    device = None if owner is None else find_device(txn, *owner)
    if device is None:
        return None
    delete_devices(txn, [device])
    return device.device_id
