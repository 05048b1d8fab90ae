"""The application services of this server."""

from collections.abc import Iterator, Sequence
from hmac import compare_digest

from ranvier.core.appservices.registration import Registration, hash_as_token
from ranvier.core.errors import ExclusiveNamespace
from ranvier.core.identifiers import RoomAlias, UserID
from ranvier.services.requester import Requester


class Appservices:
    """Finds them, and knows whose the names are. There may be none."""

    def __init__(self, registrations: Sequence[Registration]) -> None:
        self._all = tuple(registrations)
        self._by_token = {one.token_hash: one for one in registrations}
        self._by_id = {one.id: one for one in registrations}

    def __iter__(self) -> Iterator[Registration]:
        return iter(self._all)

    def __bool__(self) -> bool:
        return bool(self._all)

    def find_by_token(self, token: str) -> Registration | None:
        """Whose as_token this is. The time it takes tells nothing of the tokens: hashes are looked up."""
        digest = hash_as_token(token)
        found = self._by_token.get(digest)
        return found if found is not None and compare_digest(found.token_hash, digest) else None

    def find(self, appservice_id: str) -> Registration | None:
        return self._by_id.get(appservice_id)

    def list_claiming_user(self, user_id: UserID) -> list[Registration]:
        return [one for one in self._all if one.namespaces.claims_user(user_id)]

    def list_claiming_alias(self, alias: RoomAlias) -> list[Registration]:
        return [one for one in self._all if one.namespaces.claims_alias(alias)]

    def is_reserved(self, user_id: UserID, appservice_id: str | None = None) -> bool:
        """Whether a service (another than that one) claims the user for itself alone."""
        return any(one.id != appservice_id and one.namespaces.owns_user(user_id) for one in self._all)

    def check_alias(self, requester: Requester, alias: RoomAlias) -> None:
        """Make sure that the requester may make or delete an alias as far as namespaces are concerned.

        Raises: ExclusiveNamespace.
        Spec: application service API, "Server admin style permissions".
        """
        own = self._by_id.get(requester.appservice_id or "")
        if own is not None and not own.namespaces.claims_alias(alias):
            raise ExclusiveNamespace("This alias is not in the namespaces of the application service.")
        if any(one is not own and one.namespaces.owns_alias(alias) for one in self._all):
            raise ExclusiveNamespace("This alias belongs to an application service.")

    def controls_alias(self, requester: Requester, alias: RoomAlias) -> bool:
        """Whether the requester is a service in whose namespace the alias is: it manages all of those."""
        own = self._by_id.get(requester.appservice_id or "")
        return own is not None and own.namespaces.claims_alias(alias)
