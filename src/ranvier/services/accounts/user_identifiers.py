"""Whom a client means when it logs in.

Spec: client-server API, "Identifier types".
"""

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadIdentifier, BadJsonValue, MissingParam, UserLocked
from ranvier.core.identifiers import ServerName, UserID, parse_user_id, server_of
from ranvier.store.database import ReadTxn
from ranvier.store.tables.accounts import Account, find_account_by_id

_OTHER_TYPES = ("m.id.thirdparty", "m.id.phone")


def parse_identified_user(body: JsonObject, server_name: ServerName) -> UserID | None:
    """The user that a login (or a password stage) names, by `identifier` or, as clients of old do, by `user`.

    None: nobody of this server, such as somebody's phone number.
    Raises: MissingParam, BadJsonValue.
    """
    identifier = body.get("identifier")
    if identifier is None:
        return None if "address" in body else _own_user(body.get("user"), server_name)
    if not isinstance(identifier, dict):
        raise BadJsonValue("identifier is an object.")
    match identifier.get("type"):
        case "m.id.user":
            return _own_user(identifier.get("user"), server_name)
        case other if other in _OTHER_TYPES or "address" in identifier:
            return None
        case _:
            raise BadJsonValue("identifier: unknown type.")


def find_identified_account(txn: ReadTxn, user_id: UserID | None) -> Account | None:
    """The account, whose name may have been typed with capital letters."""
    if user_id is None:
        return None
    exact = find_account_by_id(txn, user_id)
    if exact is not None:
        return exact
    localpart, _, server = user_id.partition(":")
    return find_account_by_id(txn, UserID(f"{localpart.lower()}:{server}"))


def check_unlocked(account: Account) -> None:
    """Raises: UserLocked. Spec: client-server API, "Account locking": so every endpoint but logging out."""
    if account.is_locked:
        raise UserLocked("This account is locked.", soft_logout=True)


def _own_user(user: object, server_name: ServerName) -> UserID | None:
    if not isinstance(user, str):
        raise MissingParam("The user is missing.")
    try:
        user_id = parse_user_id(user if user.startswith("@") else f"@{user}:{server_name}")
    except BadIdentifier:
        return None
    return user_id if server_of(user_id) == server_name else None
