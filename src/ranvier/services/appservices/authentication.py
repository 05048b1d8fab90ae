"""From an as_token to the one as whom an application service acts.

What is known of a user stays in memory, as sessions do, until the user's standing changes or a device goes: a hint
of kind SESSION tells it.

Spec: application service API, "Identity assertion".
"""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Final

from ranvier.core.appservices.registration import Registration
from ranvier.core.errors import BadIdentifier, Forbidden, UnknownDevice, UserDeactivated, UserInUse
from ranvier.core.identifiers import DeviceID, UserID, parse_user_id
from ranvier.services.accounts.authentication import Authentication
from ranvier.services.accounts.creation import AccountCreation, NewAccount
from ranvier.services.appservices.registry import Appservices
from ranvier.services.requester import Requester
from ranvier.store.database import Database, Hint, Kind, ReadTxn
from ranvier.store.tables.accounts import Account, AccountKind, find_account_by_id
from ranvier.store.tables.devices import find_device

MAX_KNOWN: Final = 20_000
"""Users in memory; the one not used for longest goes first."""

_Key = tuple[str, UserID, str | None]  # service, user, device


class AppserviceAuthentication:
    """Knows tokens of application services, and leaves all others to the authentication of users."""

    def __init__(
        self, db: Database, appservices: Appservices, users: Authentication, creation: AccountCreation
    ) -> None:
        self._db = db
        self._appservices = appservices
        self._users = users
        self._creation = creation
        self._known: OrderedDict[_Key, Requester] = OrderedDict()
        self._keys_of_user: defaultdict[int, set[_Key]] = defaultdict(set)
        self._changes = 0  # heard so far: what was read meanwhile may be old
        self.seen = users.seen
        db.subscribe(self._hear)

    async def user(self, token: str, acting_as: str | None, device_id: str | None) -> Requester:
        """Raises: Forbidden (the service may not be this user), UnknownDevice, UserDeactivated; UnknownToken."""
        service = self._appservices.find_by_token(token)
        if service is None:
            return await self._users.user(token, acting_as, device_id)
        return await self._act(service, acting_as, device_id)

    async def appservice(self, token: str) -> Requester:
        """The service as its own user. Raises: Forbidden (a user's token), UnknownToken."""
        service = self._appservices.find_by_token(token)
        if service is None:
            await self._users.user(token, None, None)
            raise Forbidden("Only an application service may do this.")
        return await self._act(service, None, None)

    async def appservice_or_none(self, token: str) -> Requester | None:
        """The same; None for every other token."""
        service = self._appservices.find_by_token(token)
        return None if service is None else await self._act(service, None, None)

    async def _act(self, service: Registration, acting_as: str | None, device_id: str | None) -> Requester:
        user_id = service.sender if acting_as is None else _parse(service, acting_as)
        key = (service.id, user_id, device_id)
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        changes = self._changes
        requester = await self._db.read(_read, service, user_id, device_id)
        if requester is None:
            await self._make_sender(service)
            requester = await self._db.read(_read, service, user_id, device_id)
        assert requester is not None, "the sender was made"
        if changes == self._changes:
            self._remember(key, requester)
        return requester

    def _remember(self, key: _Key, requester: Requester) -> None:
        self._known[key] = requester
        self._keys_of_user[requester.user_nid].add(key)
        if len(self._known) > MAX_KNOWN:
            oldest, forgotten = self._known.popitem(last=False)
            self._keys_of_user[forgotten.user_nid].discard(oldest)

    async def _make_sender(self, service: Registration) -> None:
        account = NewAccount(user_id=service.sender, kind=AccountKind.APPSERVICE, appservice_id=service.id)
        try:
            await self._creation.create(account, None)
        except UserInUse:
            return  # made meanwhile

    def _hear(self, hints: Sequence[Hint]) -> None:
        for hint in hints:
            if hint.kind is Kind.GAP:
                self._changes += 1
                self._known.clear()
                self._keys_of_user.clear()
            elif hint.kind is Kind.SESSION:
                self._changes += 1
                for key in self._keys_of_user.pop(hint.key, ()):
                    self._known.pop(key, None)


def _parse(service: Registration, acting_as: str) -> UserID:
    try:
        user_id = parse_user_id(acting_as)
    except BadIdentifier as error:
        raise Forbidden("The application service cannot be this user.") from error
    if not service.namespaces.claims_user(user_id):
        raise Forbidden("The application service cannot be this user.")
    return user_id


def _read(txn: ReadTxn, service: Registration, user_id: UserID, device_id: str | None) -> Requester | None:
    """None: it is the service's own user, who is not there yet."""
    account = find_account_by_id(txn, user_id)
    if account is None:
        if user_id == service.sender:
            return None
        raise Forbidden("The application service has not registered this user.")
    if account.deactivated_ms is not None:
        raise UserDeactivated("This account is deactivated.")
    device = None if device_id is None else find_device(txn, account.user_nid, DeviceID(device_id))
    if device_id is not None and device is None:
        raise UnknownDevice("The user has no such device.")
    return _requester(service, account, None if device is None else (device.device_id, device.device_nid))


def _requester(service: Registration, account: Account, device: tuple[DeviceID, int] | None) -> Requester:
    is_sender = account.user_id == service.sender
    return Requester(
        user_id=account.user_id,
        user_nid=account.user_nid,
        device_id=None if device is None else device[0],
        device_nid=None if device is None else device[1],
        is_guest=account.kind is AccountKind.GUEST,
        is_admin=account.kind is AccountKind.ADMIN,
        is_suspended=account.is_suspended,
        is_locked=account.is_locked,
        appservice_id=service.id,
        is_unlimited=is_sender or not service.is_rate_limited,
    )
