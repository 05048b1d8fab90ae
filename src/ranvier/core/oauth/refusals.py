"""How OAuth 2.0 says no: an error code of its own registry and a sentence, not an errcode of Matrix."""

from collections.abc import Mapping

from ranvier.core.errors import MatrixError


class OAuthRefusal(MatrixError):
    """What a client is told. `code` is registered with IANA, such as "invalid_grant".

    Spec: RFC 6749, sections 4.1.2.1 and 5.2; RFC 7591, 3.2.2; RFC 8628, 3.5.
    """

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code = code

    def body(self) -> dict[str, object]:
        return {"error": self.code, "error_description": self.message}

    def parameters(self) -> Mapping[str, str]:
        """The same for a redirect URI."""
        return {"error": self.code, "error_description": self.message}


def invalid_request(description: str) -> OAuthRefusal:
    return OAuthRefusal("invalid_request", description)


def invalid_grant(description: str) -> OAuthRefusal:
    return OAuthRefusal("invalid_grant", description)
