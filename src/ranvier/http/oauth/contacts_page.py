"""The page of an account's mail addresses."""

from collections.abc import Mapping
from typing import Any

from ranvier.core.errors import MatrixError
from ranvier.http.endpoint import Rate
from ranvier.http.oauth.account_pages import account_links
from ranvier.http.oauth.visitor import Pages, Visitor
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.http.web_pages import form_endpoint, load_template, page_endpoint
from ranvier.services.accounts.email_validation import Credentials
from ranvier.services.oauth.addresses import CONTACTS, Addresses
from ranvier.services.oauth.browsers import Person
from ranvier.services.oauth.contacts import OwnContacts


class ContactsPage:
    """Whoever has one of the addresses can set a new password: so the proof must be fresh."""

    def __init__(self, pages: Pages, contacts: OwnContacts, addresses: Addresses) -> None:
        self._pages = pages
        self._contacts = contacts
        self._links = account_links(addresses)
        self._template = load_template("account_contacts.html")

    @page_endpoint(CONTACTS, operation="showContacts")
    async def show(self, request: Request) -> Response:
        visitor = await self._pages.visitor(request)
        person = visitor.person
        if person is None or not person.is_fresh:
            return self._pages.lead_to_sign_in(CONTACTS)
        return await self._page(visitor, person)

    @form_endpoint(CONTACTS, operation="changeContacts", rate=Rate.LOGIN)
    async def change(self, request: Request) -> Response:
        visitor, form = await self._pages.sender(request)
        person = visitor.person
        if person is None or not person.is_fresh:
            return self._pages.lead_to_sign_in(CONTACTS)
        try:
            return await self._do(visitor, person, form)
        except MatrixError as refusal:
            kept = {name: form[name] for name in ("email", "sid", "secret") if name in form}
            return await self._page(
                visitor,
                person,
                status=refusal.status,
                error=refusal.message,
                pending=kept if "sid" in kept else None,
            )

    async def _do(self, visitor: Visitor, person: Person, form: Mapping[str, str]) -> Response:
        if "forget" in form:
            await self._contacts.forget(person, form["forget"])
            return await self._page(visitor, person, note="The address is forgotten.")
        if "sid" in form:
            await self._contacts.add(person, Credentials(form["sid"], form.get("secret", "")))
            return await self._page(visitor, person, note="The address is added.")
        email = form.get("email", "")
        sent = await self._contacts.send_mail(email)
        pending = {"email": email, "sid": sent.sid, "secret": sent.client_secret}
        return await self._page(visitor, person, pending=pending)

    async def _page(
        self,
        visitor: Visitor,
        person: Person,
        *,
        status: int = 200,
        pending: Mapping[str, str] | None = None,
        **values: Any,
    ) -> Response:
        return self._pages.page(
            visitor,
            self._template,
            status=status,
            person=person,
            pages=self._links,
            contacts=await self._contacts.list(person),
            can_add=self._contacts.can_add,
            pending=pending,
            **{"error": None, "note": None, **values},
        )
