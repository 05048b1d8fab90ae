"""Accounts that application services make, and sessions that they open, without passwords.

Spec: application service API, "Server admin style permissions".
"""

from ranvier.core.appservices.registration import Registration
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import (
    BadIdentifier,
    ExclusiveNamespace,
    Forbidden,
    InvalidUsername,
    MissingParam,
    UserDeactivated,
)
from ranvier.core.identifiers import ServerName, UserID, parse_user_id
from ranvier.services.accounts.creation import AccountCreation, NewAccount
from ranvier.services.accounts.registration import RegistrationWish
from ranvier.services.accounts.sessions import Session, SessionDraft, SessionDrafts, SessionWish, open_session
from ranvier.services.accounts.user_identifiers import (
    check_unlocked,
    find_identified_account,
    parse_identified_user,
)
from ranvier.services.appservices.registry import Appservices
from ranvier.services.requester import Requester
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.accounts import AccountKind


class AppserviceAccounts:
    """Registers and logs in the users of a service."""

    def __init__(
        self,
        server_name: ServerName,
        db: Database,
        appservices: Appservices,
        creation: AccountCreation,
        drafts: SessionDrafts,
    ) -> None:
        self._server_name = server_name
        self._db = db
        self._appservices = appservices
        self._creation = creation
        self._drafts = drafts

    async def register(self, requester: Requester, wish: RegistrationWish) -> Session:
        """Make an account in the namespaces of the requester, which is a service.

        Raises: MissingParam, InvalidUsername, ExclusiveNamespace, UserInUse; as `SessionDrafts.draft`.
        """
        service = self._service(requester)
        if wish.username is None:
            raise MissingParam("The username is missing.")
        user_id = self._new_user(wish.username)
        if not service.namespaces.claims_user(user_id) or self._appservices.is_reserved(user_id, service.id):
            raise ExclusiveNamespace("This user is not in the namespaces of the application service.")
        session = None if wish.inhibit_login else self._drafts.draft(wish)
        account = NewAccount(user_id=user_id, kind=AccountKind.APPSERVICE, appservice_id=service.id)
        await self._creation.create(account, session)
        return Session(user_id=user_id) if session is None else session.of(user_id)

    async def login(self, requester: Requester, body: JsonObject, wish: SessionWish) -> Session:
        """Open a session for a user in the namespaces of the requester. `body` names the user as for any login.

        Raises: MissingParam, BadJsonValue, ExclusiveNamespace; Forbidden (no such user), UserDeactivated,
        UserLocked; as `SessionDrafts.draft`.
        """
        service = self._service(requester)
        user_id = parse_identified_user(body, self._server_name)
        if user_id is None or not service.namespaces.claims_user(user_id):
            raise ExclusiveNamespace("This user is not in the namespaces of the application service.")
        draft = self._drafts.draft(wish)
        return draft.of(await self._db.write(_open, user_id, draft))

    def _service(self, requester: Requester) -> Registration:
        service = self._appservices.find(requester.appservice_id or "")
        if service is None:
            raise Forbidden("Only an application service may do this.")
        return service

    def _new_user(self, username: str) -> UserID:
        # COMPAT: bridges have always made names with capital letters and worse; those are their own, and valid as
        # historical user ids.
        if ":" in username:
            raise InvalidUsername("A user name has no colon.")
        try:
            return parse_user_id(f"@{username}:{self._server_name}")
        except BadIdentifier as error:
            raise InvalidUsername("This is no user name.") from error


def _open(txn: WriteTxn, user_id: UserID, draft: SessionDraft) -> UserID:
    account = find_identified_account(txn, user_id)
    if account is None:
        raise Forbidden("The application service has not registered this user.")
    if account.deactivated_ms is not None:
        raise UserDeactivated("This account is deactivated.")
    check_unlocked(account)
    open_session(txn, account.user_nid, draft)
    return account.user_id
