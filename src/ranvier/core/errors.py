"""Whose fault it is, told by the class: `ProtocolFault` for what another server sent, `MatrixError` for what
a client asked. Both carry one clear sentence. The HTTP floor alone turns them into responses.
"""

from collections.abc import Mapping
from typing import ClassVar


class ProtocolFault(Exception):
    """Bytes or values from outside break a rule of the protocol. Sending them again cannot help."""


class BadJson(ProtocolFault):
    """Not JSON, or JSON outside the bounds that we (or the canonical form) set."""


class BadBase64(ProtocolFault):
    """A text that should be (unpadded) base64 and is not."""


class BadText(ProtocolFault):
    """A text that the database cannot hold, nor compare with what it holds: one with U+0000, in PostgreSQL."""


class BadIdentifier(ProtocolFault):
    """A user id, room id, event id, alias, server name, key id or mxc URI that breaks its grammar."""


class BadEvent(ProtocolFault):
    """An event whose shape its room version does not allow. It is dropped, not stored."""


class TooLarge(BadEvent):
    """An event or one of its fields above its size limit."""


class BadSignature(ProtocolFault):
    """A signature is missing, malformed or does not verify."""


class BadKey(ProtocolFault):
    """Device keys, a one-time key or a cross-signing key that is not what it should be."""


class BadHeader(ProtocolFault):
    """An X-Matrix header that cannot be parsed."""


class BadToken(ProtocolFault):
    """A sync or pagination token that this server cannot have issued."""


class AuthRejected(ProtocolFault):
    """An authorization rule says no. `rule` is its number in the room version's text, e.g. "5.3.4"."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(f"{reason} (rule {rule})")
        self.rule = rule
        self.reason = reason


class UnsupportedRoomVersion(ProtocolFault):
    """A room version that this server does not know."""


class ServerFault(Exception):
    """This server cannot do its work at the moment: neither a peer's fault nor a client's."""


class MatrixError(Exception):
    """What a client is told. Subclasses fix the HTTP status and the errcode; `extra` adds fields to the body.

    Spec: client-server API, "Standard error response".
    """

    status: ClassVar[int] = 400
    errcode: ClassVar[str] = "M_UNKNOWN"

    def __init__(self, message: str, **extra: object) -> None:
        super().__init__(message)
        self.message = message
        self.extra: Mapping[str, object] = extra

    def body(self) -> dict[str, object]:
        """What the response says."""
        return {"errcode": self.errcode, "error": self.message, **self.extra}


class Forbidden(MatrixError):
    status = 403
    errcode = "M_FORBIDDEN"


class GuestAccessForbidden(Forbidden):
    errcode = "M_GUEST_ACCESS_FORBIDDEN"


class UserLocked(MatrixError):
    status = 401
    errcode = "M_USER_LOCKED"


class UserSuspended(Forbidden):
    errcode = "M_USER_SUSPENDED"


class UserDeactivated(Forbidden):
    errcode = "M_USER_DEACTIVATED"


class InviteBlocked(Forbidden):
    errcode = "M_INVITE_BLOCKED"


class CannotLeaveServerNoticeRoom(Forbidden):
    errcode = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"


class MissingToken(MatrixError):
    status = 401
    errcode = "M_MISSING_TOKEN"


class UnknownToken(MatrixError):
    """`soft_logout=True` as extra tells a client that it may log in again and keep its keys."""

    status = 401
    errcode = "M_UNKNOWN_TOKEN"


class Unauthorized(MatrixError):
    status = 401
    errcode = "M_UNAUTHORIZED"


class UiaRequired(MatrixError):
    """The request must be authenticated by the user. `extra` is the whole body: flows, params, session, completed;
    errcode and error only when an attempt failed.

    Spec: client-server API, "User-Interactive Authentication API".
    """

    status = 401

    def body(self) -> dict[str, object]:
        return dict(self.extra)


class NotFound(MatrixError):
    status = 404
    errcode = "M_NOT_FOUND"


class Unrecognized(MatrixError):
    status = 404
    errcode = "M_UNRECOGNIZED"


class MethodNotAllowed(MatrixError):
    status = 405
    errcode = "M_UNRECOGNIZED"


class NotJson(MatrixError):
    errcode = "M_NOT_JSON"


class BadJsonValue(MatrixError):
    """Well-formed JSON whose values are not what the endpoint takes."""

    errcode = "M_BAD_JSON"


class ServerManagedAccountData(MatrixError):
    """Account data of a type that has endpoints of its own."""

    status = 405
    errcode = "M_BAD_JSON"


class UnknownPosition(MatrixError):
    """A `pos` of sliding sync that means nothing any more: the client begins anew. Spec: MSC4186."""

    errcode = "M_UNKNOWN_POS"


class MissingParam(MatrixError):
    errcode = "M_MISSING_PARAM"


class InvalidParam(MatrixError):
    errcode = "M_INVALID_PARAM"


class EventTooLarge(MatrixError):
    status = 413
    errcode = "M_TOO_LARGE"


class PolicyRefusal(MatrixError):
    """A room's policy server refuses an event: its own errcode and words, as the specification wants.

    Spec: server-server API, "Validating Policy Server signatures".
    """

    errcode = "M_FORBIDDEN"

    def __init__(self, errcode: str, message: str) -> None:
        super().__init__(message)
        self._errcode = errcode

    def body(self) -> dict[str, object]:
        return {**super().body(), "errcode": self._errcode}


class LimitExceeded(MatrixError):
    """`retry_after_ms` as extra goes into the body and, in seconds, into the Retry-After header."""

    status = 429
    errcode = "M_LIMIT_EXCEEDED"


class UserInUse(MatrixError):
    errcode = "M_USER_IN_USE"


class InvalidUsername(MatrixError):
    errcode = "M_INVALID_USERNAME"


class ExclusiveNamespace(MatrixError):
    errcode = "M_EXCLUSIVE"


class WeakPassword(MatrixError):
    errcode = "M_WEAK_PASSWORD"


class RoomInUse(MatrixError):
    errcode = "M_ROOM_IN_USE"


class InvalidRoomState(MatrixError):
    errcode = "M_INVALID_ROOM_STATE"


class UnsupportedRoomVersionRequested(MatrixError):
    errcode = "M_UNSUPPORTED_ROOM_VERSION"


class IncompatibleRoomVersion(MatrixError):
    errcode = "M_INCOMPATIBLE_ROOM_VERSION"


class UnableToAuthoriseJoin(MatrixError):
    errcode = "M_UNABLE_TO_AUTHORISE_JOIN"


class UnableToGrantJoin(MatrixError):
    errcode = "M_UNABLE_TO_GRANT_JOIN"


class BadAlias(MatrixError):
    errcode = "M_BAD_ALIAS"


class DuplicateAnnotation(MatrixError):
    errcode = "M_DUPLICATE_ANNOTATION"


class ThreepidNotFound(MatrixError):
    errcode = "M_THREEPID_NOT_FOUND"


class ThreepidInUse(MatrixError):
    errcode = "M_THREEPID_IN_USE"


class ThreepidAuthFailed(Forbidden):
    errcode = "M_THREEPID_AUTH_FAILED"


class ThreepidDenied(Forbidden):
    errcode = "M_THREEPID_DENIED"


class ThreepidMediumNotSupported(MatrixError):
    errcode = "M_THREEPID_MEDIUM_NOT_SUPPORTED"


class NotInThread(MatrixError):
    """Spec: MSC4306, under the name that clients know until it is accepted."""

    errcode = "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD"


class ConflictingUnsubscription(MatrixError):
    """Spec: MSC4306, likewise."""

    status = 409
    errcode = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION"


class DelayedEventFinalised(MatrixError):
    """It was sent, or will never be: what is asked for cannot be done any more. Spec: MSC4140."""

    status = 409


class ServerNotTrusted(MatrixError):
    errcode = "M_SERVER_NOT_TRUSTED"


class InvalidSignature(MatrixError):
    """A key that a client uploads is not signed as it must be."""

    errcode = "M_INVALID_SIGNATURE"


class WrongRoomKeysVersion(Forbidden):
    """`current_version` as extra names the backup version that the server holds."""

    errcode = "M_WRONG_ROOM_KEYS_VERSION"


class ProfileTooLarge(MatrixError):
    errcode = "M_PROFILE_TOO_LARGE"


class ProfileKeyTooLarge(MatrixError):
    errcode = "M_KEY_TOO_LARGE"


class MediaTooLarge(MatrixError):
    """A file of this server's own, or one that is to become that, above its bound."""

    status = 413
    errcode = "M_TOO_LARGE"


class RemoteMediaTooLarge(MatrixError):
    """A file of another server above the bound."""

    status = 502
    errcode = "M_TOO_LARGE"


class CannotThumbnail(MatrixError):
    """There is no smaller picture of this content. Spec: GET /media/thumbnail, status 400."""


class NotYetUploaded(MatrixError):
    status = 504
    errcode = "M_NOT_YET_UPLOADED"


class CannotOverwriteMedia(MatrixError):
    status = 409
    errcode = "M_CANNOT_OVERWRITE_MEDIA"


class BadGateway(MatrixError):
    """Another server failed us; its own words are never passed on."""

    status = 502
    errcode = "M_UNKNOWN"


class Unavailable(MatrixError):
    status = 503
    errcode = "M_UNKNOWN"


class AliasExists(MatrixError):
    """Spec: PUT /directory/room/{roomAlias}."""

    status = 409
    errcode = "M_UNKNOWN"


class UnknownDevice(MatrixError):
    errcode = "M_UNKNOWN_DEVICE"


class UrlNotSet(MatrixError):
    errcode = "M_URL_NOT_SET"


class BadStatus(BadGateway):
    errcode = "M_BAD_STATUS"


class ConnectionFailed(BadGateway):
    errcode = "M_CONNECTION_FAILED"


class ConnectionTimeout(MatrixError):
    status = 504
    errcode = "M_CONNECTION_TIMEOUT"


class RequestTimeout(MatrixError):
    status = 408
    errcode = "M_UNKNOWN"
