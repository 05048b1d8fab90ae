"""Which server sent a request: the X-Matrix header against the keys of the server that it names.

Spec: server-server API, "Request Authentication".
"""

from typing import Final

from ranvier.core import canonical_json
from ranvier.core.errors import BadHeader, BadJson, BadSignature, Unauthorized
from ranvier.core.federation.xmatrix import (
    Credentials,
    bytes_to_sign,
    check_destination,
    check_signature,
    parse_header,
)
from ranvier.core.identifiers import ServerName
from ranvier.core.signing import VerifyKey
from ranvier.services.remote.keyring import Keyring
from ranvier.services.remote.standing import Standings

_NOT_SIGNED: Final = "The request is not signed by the server that it names."


class Verification:
    """Verifies requests to this server."""

    def __init__(self, own_server: ServerName, keyring: Keyring, standings: Standings) -> None:
        self._own_server = own_server
        self._keyring = keyring
        self._standings = standings

    async def origin(self, method: str, target: str, authorization: str | None, body: bytes) -> ServerName:
        """The server that signed the request.

        Args: target - path and query as they came; authorization - the header's value, None without one.
        Cost: 1 verification for a server whose keys are in memory.
        Raises: Unauthorized; LimitExceeded: too many keys are being fetched for the asker.
        """
        if authorization is None:
            raise Unauthorized("This needs the signature of a server.")
        try:
            credentials = parse_header(authorization)
            check_destination(credentials, (self._own_server,))
        except BadHeader as error:
            raise Unauthorized(f"Bad Authorization header: {error}.") from error
        key = await self._keyring.find_request_key(credentials.origin, credentials.key_id)
        if key is None:
            raise Unauthorized("The key that signed the request is not known, or not valid any more.")
        self._check(credentials, key, method, target, body)
        await self._standings.heard_from(credentials.origin)
        return credentials.origin

    def _check(self, credentials: Credentials, key: VerifyKey, method: str, target: str, body: bytes) -> None:
        try:
            # Most servers send bodies in canonical form. What verifies as it stands is what was signed: the
            # end of the signed bytes is ours, so no other cut of them gives these.
            check_signature(credentials, self._message(credentials, method, target, body or None), key)
        except BadSignature:
            try:
                canonical = canonical_json.encode(canonical_json.parse_object(body)) if body else None
                if canonical == (body or None):
                    raise
                check_signature(credentials, self._message(credentials, method, target, canonical), key)
            except (BadSignature, BadJson) as error:
                raise Unauthorized(_NOT_SIGNED) from error

    def _message(self, credentials: Credentials, method: str, target: str, content: bytes | None) -> bytes:
        return bytes_to_sign(
            method=method,
            uri=target,
            origin=credentials.origin,
            destination=self._own_server,
            content=content,
        )
