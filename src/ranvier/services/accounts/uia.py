"""User-interactive authentication: some requests ask for more than an access token.

An endpoint that needs it names its request and the flows that it takes, and calls `authorize` with the "auth"
of the body. What was done so far stands in the database, so a session survives restarts and any process can
go on with it. A session is good for one request, and once.

Spec: client-server API, "User-Interactive Authentication API".
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import (
    BadJsonValue,
    Forbidden,
    MatrixError,
    NotFound,
    UiaRequired,
    Unauthorized,
    Unrecognized,
)
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.services.requester import Requester
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.uia import (
    UiaSession,
    complete_uia_stage,
    delete_uia_session,
    find_uia_session,
    insert_uia_session,
)

SESSION_LIFETIME_MS: Final = 24 * 3_600_000
SESSION_ID_BYTES: Final = 24

DUMMY: Final = "m.login.dummy"
PASSWORD: Final = "m.login.password"  # noqa: S105 - the name of a stage
REGISTRATION_TOKEN: Final = "m.login.registration_token"  # noqa: S105 - the name of a stage
EMAIL_IDENTITY: Final = "m.login.email.identity"
SSO: Final = "m.login.sso"

Flow = Sequence[str]
"""Stages in the order in which they must be done."""

OWNER: Final[tuple[Flow, ...]] = ((PASSWORD,),)
"""The flows by which somebody proves to be the owner of an account."""

APPROVAL: Final[tuple[Flow, ...]] = (("m.oauth",), ("org.matrix.cross_signing_reset",))
"""The flows for sessions that came by OAuth: a person approves on a web page. The second is from before v1.17."""

ApprovalUrl = Callable[[str], str]
"""Where the request that waits in a session is approved."""

FindFlows = Callable[[Requester], Awaitable[Sequence[Flow]]]
"""The flows by which this very user can do so."""

Proofs = Mapping[str, bytes]
"""stage -> what it proved, JSON."""


class AnothersProof(Forbidden):
    """The proof is good, but another user's than the one who asks: trying again cannot help."""


class Stage(Protocol):
    """One way of proving something."""

    @property
    def type(self) -> str: ...

    async def attempt(self, user_nid: int | None, auth: JsonObject) -> bytes:
        """What was proved, as JSON. `user_nid`: whose proof it must be; None when nobody is logged in.

        Raises: Forbidden, Unauthorized: the client is told so and may try again; AnothersProof and any other
        MatrixError: the request fails.
        """


class _Attempt(msgspec.Struct, frozen=True):
    """What a client sends as "auth"; the rest depends on the stage."""

    type: str | None = None
    session: str | None = None


class UserInteractive:
    """Asks the user, and remembers the answers."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        randomness: Randomness,
        stages: Iterable[Stage],
        find_owner_flows: FindFlows | None = None,
        approval_url: ApprovalUrl | None = None,
    ) -> None:
        """`find_owner_flows`: None where owners prove themselves by their passwords alone. `approval_url`: None where
        there is no OAuth.
        """
        self._approval_url = approval_url
        self._db = db
        self._clock = clock
        self._randomness = randomness
        self._stages = {stage.type: stage for stage in stages}
        self._find_owner_flows = find_owner_flows

    async def authorize_owner(
        self,
        requester: Requester | None,
        request: str,
        auth: JsonObject | None,
        *,
        others: Sequence[Flow] = (),
    ) -> Proofs:
        """`authorize`, by what proves that an account is the requester's own. `others`: flows that do as well."""
        flows: Sequence[Flow] = OWNER
        if self._find_owner_flows is not None and requester is not None:
            flows = await self._find_owner_flows(requester)
        return await self.authorize(requester, request, auth, (*flows, *others))

    async def authorize(
        self, requester: Requester | None, request: str, auth: JsonObject | None, flows: Sequence[Flow]
    ) -> Proofs:
        """Return when all stages of one flow are done; the session is used up then.

        `request`: the operation and what it is about, such as "deleteDevice ABC": one session, one request.
        Raises: UiaRequired, with what the client has to do; BadJsonValue; whatever stages raise; Unrecognized: the
        requester came by OAuth, and this is done on web pages.
        Cost: at most 1 read and 1 write.
        """
        # Client-server API, "OAuth 2.0 API".
        if requester is not None and requester.is_oauth and flows is not APPROVAL:
            raise Unrecognized("This session came by OAuth: use the account pages of this server.")
        asked = _Asked(requester, request, flows)
        if auth is None:
            raise await self._begin(asked, {}, None)
        attempt = _parse(auth)
        done: Proofs = {}
        if attempt.session is not None:
            session = await self._db.read(find_uia_session, attempt.session)
            if session is None or not self._is_good(session) or not _is_for(session, asked):
                raise await self._begin(asked, {}, Forbidden("This session is unknown or has expired."))
            done = session.completed
        if attempt.type is not None and attempt.type not in done:
            try:
                done = {**done, attempt.type: await self._attempt(asked, attempt.type, auth, done)}
            except AnothersProof:
                raise
            except (Forbidden, Unauthorized) as refusal:
                raise await self._ask(asked, attempt.session, done, refusal) from refusal
        if not _is_complete(done, flows):
            raise await self._advance(asked, attempt, done)
        if attempt.session is not None and not await self._db.write(delete_uia_session, attempt.session):
            raise await self._begin(asked, {}, Forbidden("This session was used already."))
        return done

    async def authorize_by_approval(
        self, requester: Requester, request: str, auth: JsonObject | None
    ) -> Proofs:
        """`authorize`, for who came by OAuth. Spec: client-server API, "OAuth authentication"; MSC4312."""
        if self._approval_url is None:
            raise Unrecognized("There are no account pages on this server.")
        return await self.authorize(requester, request, auth, APPROVAL)

    async def complete(self, session_id: str, type_: str, auth: JsonObject) -> None:
        """Do one stage apart from the request, on a web page; the client then shows the session alone.

        Raises: NotFound (no such session or stage); what the stage raises.
        """
        session = await self.find_session(session_id)
        stage = self._stages.get(type_)
        if stage is None:
            raise NotFound("There is no such stage.")
        if type_ in session.completed:
            return
        proof = await stage.attempt(session.user_nid, auth)
        if not await self._db.write(complete_uia_stage, session_id, type_, proof, self._clock.now_ms()):
            raise NotFound("This session is unknown or has expired.")

    async def find_session(self, session_id: str) -> UiaSession:
        """Whose it is, and what for. Raises: NotFound."""
        session = await self._db.read(find_uia_session, session_id)
        if session is None or not self._is_good(session):
            raise NotFound("This session is unknown or has expired.")
        return session

    async def prove(self, session_id: str, type_: str, user_nid: int, proof: bytes) -> None:
        """Note what a user proved elsewhere, if it is their own session. Raises: NotFound, AnothersProof."""
        session = await self.find_session(session_id)
        if session.user_nid != user_nid:
            raise AnothersProof("This is another user's session.")
        if not await self._db.write(complete_uia_stage, session_id, type_, proof, self._clock.now_ms()):
            raise NotFound("This session is unknown or has expired.")

    async def _attempt(self, asked: "_Asked", type_: str, auth: JsonObject, done: Proofs) -> bytes:
        """Raises: Forbidden, also when it is another stage's turn."""
        stage = self._stages.get(type_)
        if stage is None or not any(type_ == _next_stage(flow, done) for flow in asked.flows):
            raise Forbidden(f"{type_[:100]} is not what has to be done now.")
        return await stage.attempt(asked.user_nid, auth)

    async def _advance(self, asked: "_Asked", attempt: "_Attempt", done: Proofs) -> UiaRequired:
        """Keep what was proved, and ask for the rest."""
        if attempt.session is None:
            return await self._begin(asked, done, None)
        if attempt.type is not None and not await self._db.write(
            complete_uia_stage, attempt.session, attempt.type, done[attempt.type], self._clock.now_ms()
        ):
            return await self._begin(asked, {}, Forbidden("This session was used already."))
        return self._demand(attempt.session, done, asked.flows, None)

    async def _ask(
        self, asked: "_Asked", session_id: str | None, done: Proofs, refusal: MatrixError
    ) -> UiaRequired:
        if session_id is None:
            return await self._begin(asked, done, refusal)
        return self._demand(session_id, done, asked.flows, refusal)

    async def _begin(self, asked: "_Asked", done: Proofs, refusal: MatrixError | None) -> UiaRequired:
        session_id = self._randomness.token(SESSION_ID_BYTES)
        await self._db.write(_insert, session_id, asked.user_nid, asked.request, done, self._clock.now_ms())
        return self._demand(session_id, done, asked.flows, refusal)

    def _demand(
        self, session_id: str, done: Proofs, flows: Sequence[Flow], refusal: MatrixError | None
    ) -> UiaRequired:
        body: dict[str, object] = {
            "flows": [{"stages": list(flow)} for flow in flows],
            "params": {},
            "session": session_id,
        }
        if flows is APPROVAL and self._approval_url is not None:
            where = {"url": self._approval_url(session_id)}
            body["params"] = {stage: where for (stage,) in APPROVAL}
        if done:
            body["completed"] = list(done)
        if refusal is not None:
            body |= {"errcode": refusal.errcode, "error": refusal.message}
        return UiaRequired("Authentication by the user is needed.", **body)

    def _is_good(self, session: UiaSession) -> bool:
        return session.used_ms + SESSION_LIFETIME_MS > self._clock.now_ms()


class _Asked(msgspec.Struct, frozen=True):
    requester: Requester | None
    request: str
    flows: Sequence[Flow]

    @property
    def user_nid(self) -> int | None:
        return None if self.requester is None else self.requester.user_nid


def _parse(auth: JsonObject) -> _Attempt:
    try:
        return msgspec.convert(auth, _Attempt)
    except msgspec.ValidationError as error:
        raise BadJsonValue("auth: type and session are strings.") from error


def _is_for(session: UiaSession, asked: _Asked) -> bool:
    return session.request == asked.request and session.user_nid == asked.user_nid


def _next_stage(flow: Flow, done: Proofs) -> str | None:
    """The stage that is due: the first one that is not done."""
    return next((stage for stage in flow if stage not in done), None)


def _is_complete(done: Proofs, flows: Sequence[Flow]) -> bool:
    return any(done.keys() >= set(flow) for flow in flows)


def _insert(
    txn: WriteTxn, session_id: str, user_nid: int | None, request: str, done: Proofs, now_ms: int
) -> None:
    insert_uia_session(txn, session_id, user_nid, request, now_ms)
    for stage, result in done.items():
        complete_uia_stage(txn, session_id, stage, result, now_ms)
