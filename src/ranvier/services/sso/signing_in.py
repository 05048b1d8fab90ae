"""A person signs in through a provider: from the client's redirect to a login token, or to a confirmed request.

    start → the provider → arrive → [choose_name] → [leave] → the client, with a login token
    start_confirming → the provider → arrive → allow

Spec: client-server API, "SSO client login/authentication".
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.errors import ExclusiveNamespace, Forbidden, InvalidUsername, NotFound, UserInUse
from ranvier.core.identifiers import UserID
from ranvier.core.sso.redirects import Redirect, is_trusted, parse_redirect
from ranvier.services.accounts.creation import ExternalIdentity
from ranvier.services.accounts.login_tokens import LoginTokens
from ranvier.services.sso.admitting import Admitting, Newcomer, User, check_welcome
from ranvier.services.sso.confirming import Confirming, Demand
from ranvier.services.sso.providers import ProviderSettings
from ranvier.services.sso.upstream import Departure, Identity, Upstream
from ranvier.services.sso.visits import Arrived, Asked, Leaving, Ticket, Unnamed, VisitGone, Visits

log = logging.getLogger(__name__)

MAX_CODE_CHARS: Final = 8_192
MAX_SHOWN_CHARS: Final = 255


class Door(msgspec.Struct, frozen=True):
    """A provider, and the way to it."""

    settings: ProviderSettings
    upstream: Upstream

    @property
    def id(self) -> str:
        return self.settings.provider.id


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider sent the browser back with. Spec: RFC 6749, 4.1.2; RFC 9207."""

    code: str | None
    error: str | None
    issuer: str | None


class GoTo(msgspec.Struct, frozen=True):
    """The browser goes on by itself."""

    url: str
    ticket: Ticket | None = None


class AskName(msgspec.Struct, frozen=True, kw_only=True):
    """The person chooses a user name."""

    ticket: Ticket
    provider: str
    suggestion: str
    problem: str | None


class AskPlace(msgspec.Struct, frozen=True, kw_only=True):
    """The person says whether the client may have the account."""

    ticket: Ticket
    user_id: UserID
    redirect: Redirect
    is_trusted: bool  # where it leads
    is_new: bool


class AskConsent(msgspec.Struct, frozen=True):
    """The person says whether a client may do what it wants to."""

    ticket: Ticket
    demand: Demand


class Confirmed(msgspec.Struct, frozen=True):
    """The request of a client is confirmed: nothing is left to do here."""


Step = GoTo | AskName | AskPlace | AskConsent | Confirmed


class SigningIn:
    """Leads people through."""

    def __init__(
        self,
        doors: Mapping[str, Door],
        visits: Visits,
        admitting: Admitting,
        confirming: Confirming,
        login_tokens: LoginTokens,
        trusted: Sequence[str],
    ) -> None:
        """`doors`: by the ids of their providers; `trusted`: where nobody is asked whether to go."""
        self._doors = doors
        self._visits = visits
        self._admitting = admitting
        self._confirming = confirming
        self._login_tokens = login_tokens
        self._trusted = trusted

    async def start(self, provider_id: str, redirect: Redirect, *, to_register: bool) -> GoTo:
        """Raises: Forbidden, ProviderFault, LimitExceeded."""
        ticket, leaving = await self._visits.begin(self._door(provider_id).id, redirect_url=redirect.url)
        return await self._leave_for(ticket, leaving, "create" if to_register else None)

    async def start_confirming(self, provider_id: str, uia_session: str) -> GoTo:
        """The way of somebody who shows again who they are. Raises: NotFound, as `start`."""
        await self._confirming.describe(uia_session)
        ticket, leaving = await self._visits.begin(self._door(provider_id).id, uia_session=uia_session)
        return await self._leave_for(ticket, leaving, "login")

    async def arrive(self, state: str, cookies: Mapping[str, str], answer: Answer) -> Step:
        """The browser is back from the provider.

        Raises: VisitGone; Forbidden: the provider or this server says no; ProviderFault; UserDeactivated, UserLocked;
        NotFound: the request to be confirmed is there no more.
        """
        leaving = await self._visits.take(state, cookies)
        if not isinstance(leaving, Leaving):
            raise VisitGone("This page is not where the provider sends anybody now.")
        door = self._door(leaving.provider)
        identity = await _ask_who(door, leaving, state, answer)
        check_welcome(door.settings, identity)
        if leaving.uia_session is not None:
            known = ExternalIdentity(leaving.provider, identity.subject)
            return await self._ask_consent(state, cookies, known, leaving.uia_session)
        admitted = await self._admitting.admit(door.settings, identity)
        redirect = parse_redirect(leaving.redirect_url or "")
        if isinstance(admitted, User):
            return await self._go_on(state, cookies, admitted, redirect)
        ticket = await self._visits.go_on(state, cookies, _unnamed(admitted, redirect))
        return _ask_name(ticket, door, admitted.user_name or "", None)

    async def choose_name(
        self, ticket: str, cookies: Mapping[str, str], user_name: str
    ) -> AskName | AskPlace:
        """Make the account, and ask where to go even if the place is trusted: this is the answer to a form, which
        may not lead away.

        Raises: VisitGone, Forbidden, UserDeactivated, UserLocked.
        """
        unnamed = await self._visits.take(ticket, cookies)
        if not isinstance(unnamed, Unnamed):
            raise VisitGone("Nobody is asked for a name here now.")
        door = self._door(unnamed.provider)
        try:
            user = await self._admitting.make(door.settings, _newcomer(unnamed), user_name)
        except (InvalidUsername, UserInUse, ExclusiveNamespace) as refusal:
            again = await self._visits.go_on(ticket, cookies, unnamed)
            return _ask_name(again, door, user_name[:MAX_SHOWN_CHARS], refusal.message)
        return await self._ask_place(ticket, cookies, user, parse_redirect(unnamed.redirect_url), is_new=True)

    async def leave(self, ticket: str, cookies: Mapping[str, str]) -> str:
        """The URL of the client, with a login token. Raises: VisitGone."""
        arrived = await self._visits.take(ticket, cookies)
        if not isinstance(arrived, Arrived):
            raise VisitGone("Nobody goes on from here now.")
        return await self._with_token(arrived.user_nid, parse_redirect(arrived.redirect_url))

    async def allow(self, ticket: str, cookies: Mapping[str, str]) -> Confirmed:
        """The person agrees. Raises: VisitGone, NotFound."""
        asked = await self._visits.take(ticket, cookies)
        if not isinstance(asked, Asked):
            raise VisitGone("Nobody is asked for consent here now.")
        await self._confirming.confirm(asked.uia_session, asked.user_nid)
        return Confirmed()

    async def _leave_for(self, ticket: Ticket, leaving: Leaving, prompt: str | None) -> GoTo:
        departure = Departure(
            state=ticket.value, nonce=leaving.nonce, verifier=leaving.verifier, prompt=prompt
        )
        return GoTo(await self._door(leaving.provider).upstream.authorization_url(departure), ticket)

    async def _go_on(
        self, ticket: str, cookies: Mapping[str, str], user: User, redirect: Redirect
    ) -> GoTo | AskPlace:
        if is_trusted(redirect, self._trusted):
            return GoTo(await self._with_token(user.user_nid, redirect))
        return await self._ask_place(ticket, cookies, user, redirect, is_new=False)

    async def _ask_consent(
        self, ticket: str, cookies: Mapping[str, str], identity: ExternalIdentity, uia_session: str
    ) -> AskConsent:
        """The page comes after the provider, which may have asked for nothing: a link that leads there must not do.

        Raises: Forbidden, NotFound, UserDeactivated, UserLocked.
        """
        user = await self._admitting.find(identity)
        demand = await self._confirming.describe(uia_session)
        if user is None or user.user_nid != demand.user_nid:
            raise Forbidden(f"This is not how {demand.user_id} signs in.")
        asked = Asked(user_nid=user.user_nid, uia_session=uia_session)
        return AskConsent(await self._visits.go_on(ticket, cookies, asked), demand)

    async def _ask_place(
        self, ticket: str, cookies: Mapping[str, str], user: User, redirect: Redirect, *, is_new: bool
    ) -> AskPlace:
        arrived = Arrived(user_nid=user.user_nid, redirect_url=redirect.url)
        again = await self._visits.go_on(ticket, cookies, arrived)
        return AskPlace(
            ticket=again,
            user_id=user.user_id,
            redirect=redirect,
            is_trusted=is_trusted(redirect, self._trusted),
            is_new=is_new,
        )

    async def _with_token(self, user_nid: int, redirect: Redirect) -> str:
        return redirect.with_token(await self._login_tokens.issue(user_nid))

    def _door(self, provider_id: str) -> Door:
        """Raises: NotFound: also of a provider that was there when the visit began."""
        door = self._doors.get(provider_id)
        if door is None:
            raise NotFound("This server knows no such identity provider.")
        return door


async def _ask_who(door: Door, leaving: Leaving, state: str, answer: Answer) -> Identity:
    """Raises: Forbidden, ProviderFault."""
    provider = door.settings.provider
    if answer.error == "access_denied":
        raise Forbidden(f"You did not sign in to {provider.name}.")
    if answer.error is not None or not answer.code or len(answer.code) > MAX_CODE_CHARS:
        log.warning("identity provider %s: no code, but %.200r", provider.id, answer.error)
        raise Forbidden(f"{provider.name} did not let you sign in.")
    departure = Departure(state=state, nonce=leaving.nonce, verifier=leaving.verifier)
    return await door.upstream.identify(answer.code, departure, answer.issuer)


def _ask_name(ticket: Ticket, door: Door, suggestion: str, problem: str | None) -> AskName:
    return AskName(
        ticket=ticket, provider=door.settings.provider.name, suggestion=suggestion, problem=problem
    )


def _unnamed(newcomer: Newcomer, redirect: Redirect) -> Unnamed:
    return Unnamed(
        provider=newcomer.identity.provider,
        subject=newcomer.identity.subject,
        display_name=newcomer.display_name,
        email=newcomer.email,
        redirect_url=redirect.url,
    )


def _newcomer(unnamed: Unnamed) -> Newcomer:
    return Newcomer(
        identity=ExternalIdentity(unnamed.provider, unnamed.subject),
        user_name=None,
        display_name=unnamed.display_name,
        email=unnamed.email,
    )
