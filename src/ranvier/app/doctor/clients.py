"""How clients find this server, and what the proxy before it does to them.

Spec: client-server API, "Server Discovery".
"""

from collections.abc import AsyncIterator
from typing import Final

import msgspec

from ranvier.app.doctor.findings import Finding, Instruments, fault, fine, note
from ranvier.core.identifiers import split_host_port
from ranvier.io.ports import HttpResponse, RemoteFault

_VERSIONS: Final = "/_matrix/client/versions"
_ALIAS: Final = "/_matrix/client/v3/directory/room/%23doctor%2Fslash%3A"
_ADMIN: Final = "/_synapse/admin/v1/server_version"
_METRICS: Final = "/metrics"
_WELL_KNOWN: Final = "/.well-known/matrix/client"
MAX_REDIRECTS: Final = 5


class _Homeserver(msgspec.Struct):
    base_url: str


class _WellKnown(msgspec.Struct):
    homeserver: _Homeserver = msgspec.field(name="m.homeserver")


class _Error(msgspec.Struct):
    errcode: str


async def examine_clients(instruments: Instruments) -> AsyncIterator[Finding]:
    """Follow the way that clients take to this server."""
    base = instruments.config.public_base_url
    if base is None:
        yield note(
            "public_base_url is not set: clients cannot find this server by its name, and there are no calls"
        )
        return
    base = base.rstrip("/")
    try:
        response = await instruments.get(base + _VERSIONS)
    except RemoteFault as error:
        yield fault(f"{base} does not answer clients: {error}")
        return
    if response.status != 200 or b"versions" not in response.body:
        yield fault(f"{base}{_VERSIONS} answers {response.status}: let the proxy hand /_matrix over")
        return
    yield fine(f"{base} answers clients")
    if response.headers.get("access-control-allow-origin") != "*":
        yield fault(f"{base}: the proxy takes Access-Control-Allow-Origin away: clients in browsers need it")
    for finding in await _examine_proxy(instruments, base):
        yield finding
    yield await _examine_well_known(instruments, base)


async def _examine_proxy(instruments: Instruments, base: str) -> list[Finding]:
    findings = []
    try:
        response = await instruments.get(f"{base}{_ALIAS}{instruments.config.server_name}")
        if _errcode(response) != "M_NOT_FOUND":
            findings.append(fault(f"{base}: the proxy changes paths: it has to hand over %2F as it came"))
        for path, what in ((_ADMIN, "the administration API"), (_METRICS, "metrics")):
            response = await instruments.get(base + path)
            if response.status in (200, 401, 403):
                findings.append(note(f"{base}{path}: whoever can ask there can ask {what}, too: block it"))
    except RemoteFault as error:
        findings.append(fault(f"{base} does not always answer: {error}"))
    return findings


async def _examine_well_known(instruments: Instruments, base: str) -> Finding:
    host, port = split_host_port(instruments.config.name)
    if port is not None:
        return note(f"clients have to be told {base}: a server name with a port has no well-known file")
    url = f"https://{host}{_WELL_KNOWN}"
    try:
        response = await instruments.get(url, MAX_REDIRECTS)
    except RemoteFault as error:
        return fault(f"{url} does not answer: clients have to be told {base} ({error})")
    try:
        told = msgspec.json.decode(response.body, type=_WellKnown).homeserver.base_url.rstrip("/")
    except msgspec.DecodeError:
        return fault(
            f'{url} answers {response.status}, and not {{"m.homeserver": {{"base_url": "{base}"}}}}: clients do not '
            "find this server by its name"
        )
    if told != base:
        return fault(f"{url} leads clients to {told}, and public_base_url is {base}")
    if response.headers.get("access-control-allow-origin") != "*":
        return fault(f"{url} needs the header Access-Control-Allow-Origin: * for clients in browsers")
    return fine(f"{url} leads clients to {base}")


def _errcode(response: HttpResponse) -> str | None:
    try:
        return msgspec.json.decode(response.body, type=_Error).errcode
    except msgspec.DecodeError:
        return None
