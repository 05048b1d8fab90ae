"""Who may call what: whatever is open to others than the users of this server is open on purpose."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import ranvier
from ranvier.http.endpoint import Api, Auth, Endpoint, Rate

from .homeserver import Homeserver, User

OPEN = {
    # who has no account, or no token any more
    *("login", "getLoginFlows", "loginFallback", "refresh", "register", "checkUsernameAvailability"),
    *(
        "registrationTokenValidity",
        "authFallback",
        "authFallbackSubmit",
        "changePassword",
        "deactivateAccount",
    ),
    *("requestTokenTo3PIDEmail", "requestTokenTo3PIDMSISDN"),
    *("requestTokenToRegisterEmail", "requestTokenToRegisterMSISDN"),
    *("requestTokenToResetPasswordEmail", "requestTokenToResetPasswordMSISDN"),
    # what the specification shows to everybody
    *(
        "getVersions",
        "getWellknown",
        "getWellKnown",
        "getWellknownSupport",
        "landing",
        "health",
        "getVersion",
    ),
    *("getUserProfile", "getProfileField", "getRoomIdByAlias", "getRoomVisibilityOnDirectory"),
    *("getPublicRooms", "getRoomSummary", "getContent", "getContentOverrideName", "getContentThumbnail"),
    *("getServerKey", "perspectivesKeyQuery", "bulkPerspectivesKeyQuery"),
    # who signs in elsewhere; what follows the redirect needs what the browser was given there
    *("redirectToSSO", "redirectToIdP", "returnFromIdP", "chooseNameForSSO", "continueFromSSO"),
    *("confirmAtIdP", "allowAfterSSO"),
    # pages for browsers, which know who is signed in by a cookie and let nobody do anything without
    *("showSignIn", "signIn", "continueSignIn", "signOut", "showSignUp", "signUp"),
    *("showForgotPassword", "forgotPassword", "showAccount", "changeAccount", "approvalFallback"),
    *("showAvatar", "changeAvatar"),
    *("showContacts", "changeContacts"),
    *("showAuthorization", "authorize", "showDeviceLink", "linkDevice"),
    # clients of OAuth have no secrets of their own: codes and tokens are the proof
    *("getAuthMetadata", "registerOAuthClient", "authorizeOAuthDevice", "getOAuthToken", "revokeOAuthToken"),
    # two devices of a person, one of which is not signed in yet
    *("beginTextRendezvous", "getTextRendezvous", "putTextRendezvous", "endTextRendezvous"),
    *("discoverRendezvous", "beginRendezvous", "getRendezvous", "putRendezvous", "endRendezvous"),
    # a secret in the request is the proof
    *("getRegisterNonce", "registerBySharedSecret", "exchangeOpenIdToken"),
    *("showMailConfirmation", "confirmMail", "showMailUnsubscribe", "unsubscribeFromMail"),
    *("getLiveKitServiceToken", "getLiveKitSfu", "onBindThirdPartyIdentifier"),
    *("sendDelayedEvent", "cancelDelayedEvent", "restartDelayedEvent", "updateDelayedEvent"),
    # where the administrator says so, for whoever reaches the listener
    *("metrics", "send2014", "pull2014", "query2014", "getPdu2014", "getState2014", "getContext2014"),
    "backfill2014",
}


def _endpoints() -> Iterator[Endpoint]:
    """All that any class declares."""
    for module in pkgutil.walk_packages(ranvier.__path__, "ranvier."):
        if module.name.startswith(("ranvier.http.", "ranvier.historical.")):
            for held in vars(importlib.import_module(module.name)).values():
                if isinstance(held, type) and held.__module__ == module.name:
                    for name in dir(held):
                        yield from getattr(getattr(held, name), "__endpoints__", ())


ALL = tuple(_endpoints())


def test_what_is_open_is_open_on_purpose() -> None:
    is_open = (Auth.NONE, Auth.OPTIONAL, Auth.ANYBODY)
    assert {one.operation for one in ALL if one.auth in is_open} == OPEN


def test_administration_is_for_administrators() -> None:
    by_secret = {"getRegisterNonce", "registerBySharedSecret"}
    found = [one for one in ALL if one.path.startswith("/_synapse/admin/")]
    assert len(found) > 90
    assert {one.operation for one in found if one.auth is not Auth.ADMIN} == by_secret
    assert not [one for one in found if one.guests or one.locked or one.api not in (Api.ADMIN, Api.MEDIA)]


def test_servers_sign_what_they_ask() -> None:
    found = [one for one in ALL if one.path.startswith("/_matrix/federation/") and one.api is Api.FEDERATION]
    others = {one.operation for one in found if one.auth is not Auth.SERVER}
    assert others == {"getVersion", "exchangeOpenIdToken", "onBindThirdPartyIdentifier"}


def test_locked_users_can_only_go() -> None:
    assert {one.operation for one in ALL if one.locked} == {"logout", "logout_all", "getVersions"}


def test_what_sends_mail_or_asks_for_a_secret_is_slow() -> None:
    slow = {Rate.LOGIN, Rate.REGISTRATION, Rate.JOIN}
    writes = [one for one in ALL if one.auth is Auth.NONE and one.method != "GET"]
    fast = {one.operation for one in writes if one.rate not in slow}
    # A session must have been begun, slowly, before anybody can write in it.
    meeting = {"putTextRendezvous", "endTextRendezvous", "putRendezvous", "endRendezvous"}
    # Tokens are as long as that of "refresh", and the pages need the cookie of somebody who signed in, slowly.
    oauth = {"getOAuthToken", "revokeOAuthToken", "authorize", "signOut"}
    assert fast == {"refresh", "bulkPerspectivesKeyQuery", "send2014"} | meeting | oauth


ADMINISTRATION = sorted(
    {
        (one.method, one.path)
        for one in ALL
        if one.path.startswith("/_synapse/admin/") and one.auth is Auth.ADMIN
    }
)


async def test_no_user_gets_into_the_administration(homeserver: Homeserver, alice: User) -> None:
    """Neither by a token of their own nor by none, whatever the path."""
    for method, path in ADMINISTRATION:
        filled = path.replace("{", "").replace("}", "")
        for caller, errcode in ((alice, "M_FORBIDDEN"), (homeserver.client, "M_MISSING_TOKEN")):
            answer: Any = await caller.request(method, filled, body=b"{}" if method != "GET" else b"")
            assert answer.errcode == errcode, (method, path, answer.body)
