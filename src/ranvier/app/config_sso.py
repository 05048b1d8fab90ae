"""What types alone cannot say of single sign-on, and the secrets that stand in files of their own."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from ranvier.app.config import Config, SsoProviderConfig
from ranvier.core.errors import BadIdentifier, InvalidParam
from ranvier.core.identifiers import parse_mxc
from ranvier.core.sso.claims import BadTemplate, check_template
from ranvier.core.sso.endpoints import is_endpoint
from ranvier.core.sso.redirects import parse_redirect


def check_sso(config: Config) -> Iterator[str]:
    """A line for each fault."""
    sso = config.sso
    if sso.providers and config.public_base_url is None:
        yield "sso: needs public_base_url, to which providers send people back"
    if not sso.providers and not config.login.password and config.login.jwt.secret is None:
        yield "login.password: where no passwords are taken, sso.providers (or login.jwt) must say how people sign in"
    for url in sso.trusted_redirects:
        try:
            parse_redirect(url)
        except InvalidParam:
            yield f"sso.trusted_redirects: {url!r} is no URL such as https://app.element.io/"
    seen: set[str] = set()
    for number, provider in enumerate(sso.providers, 1):
        place = f"sso.providers[{number}]"
        if provider.id in seen:
            yield f"{place}.id: {provider.id!r} is another provider's"
        seen.add(provider.id)
        yield from (f"{place}.{fault}" for fault in _check_provider(provider))


def read_client_secrets(config: Config, directory: Path) -> Config:
    """The configuration with what stands in files. Raises: OSError."""
    providers = tuple(_with_secret(provider, directory) for provider in config.sso.providers)
    return msgspec.structs.replace(config, sso=msgspec.structs.replace(config.sso, providers=providers))


def _with_secret(provider: SsoProviderConfig, directory: Path) -> SsoProviderConfig:
    file = provider.client_secret_file
    if file is None:
        return provider
    secret = (directory / file).read_text(encoding="utf-8").strip()
    return msgspec.structs.replace(provider, client_secret=secret)


def _check_provider(provider: SsoProviderConfig) -> Iterator[str]:
    written = (provider.authorization_endpoint, provider.token_endpoint, provider.userinfo_endpoint)
    if provider.issuer is not None:
        if any(written):
            yield "issuer: an OpenID provider tells its endpoints itself; write either the one or the others"
        if "openid" not in provider.scopes:
            yield "scopes: an OpenID provider is asked for openid"
    elif not all(written):
        yield "issuer: is missing, or else authorization_endpoint, token_endpoint and userinfo_endpoint"
    for name in ("issuer", "authorization_endpoint", "token_endpoint", "userinfo_endpoint"):
        url = getattr(provider, name)
        if url is not None and not is_endpoint(url, may_be_near=True):
            yield f"{name}: must be a URL that starts with https:// (or http://, on this machine)"
    if provider.client_secret is not None and provider.client_secret_file is not None:
        yield "client_secret_file: client_secret is there already"
    for name in ("user_name", "display_name", "email"):
        try:
            check_template(getattr(provider, name))
        except BadTemplate as error:
            yield f"{name}: {error}"
    if provider.icon is not None:
        try:
            parse_mxc(provider.icon)
        except BadIdentifier as error:
            yield f"icon: {error}"
