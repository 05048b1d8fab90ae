"""How other servers find this one, and whether they reach it.

Spec: server-server API, "Resolving server names", "Retrieving server keys".
"""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote

from ranvier.app.doctor.findings import Finding, Instruments, fault, fine, note
from ranvier.core.canonical_json import parse_object
from ranvier.core.errors import BadIdentifier, BadJson, ProtocolFault
from ranvier.core.federation.discovery import FetchWellKnown, Found, LookUpSrv, Route, Step, start
from ranvier.core.federation.server_keys import (
    OWN_VALIDITY_MS,
    ServerKeys,
    check_key_document,
    parse_key_document,
)
from ranvier.core.federation.well_known import MAX_REDIRECTS, PATH, parse_body
from ranvier.core.identifiers import ServerName, is_ip_literal
from ranvier.io.address_guard import AddressGuard
from ranvier.io.ports import HttpResponse, RemoteFault
from ranvier.services.remote.finder import Finder

EXPIRES_SOON_DAYS: Final = 14
CLOCK_OFF_S: Final = 30
"""A minute is about what other servers and clients put up with."""
MAX_ADDRESSES: Final = 4

_KEYS: Final = "/_matrix/key/v2/server"
_VERSION: Final = "/_matrix/federation/v1/version"
_DAY_MS: Final = 86_400_000
_FRESH_MS: Final = 60_000


async def examine_federation(instruments: Instruments, peers: Sequence[ServerName]) -> AsyncIterator[Finding]:
    """Follow the way that others take to this server, and let `peers` say whether they reach it."""
    if not instruments.config.federation.enabled:
        yield note("federation: off (federation.enabled)")
        return
    findings, routes = await _discover(instruments)
    for finding in findings:
        yield finding
    for route in routes:
        async for finding in _examine_route(instruments, route):
            yield finding
    if not peers:
        yield note("no other server was asked whether it reaches this one: --peer matrix.org does that")
    for peer in peers:
        async for finding in _ask_peer(instruments, peer):
            yield finding


async def _discover(instruments: Instruments) -> tuple[list[Finding], Sequence[Route]]:
    """The steps by which others find this server, and where they lead."""
    findings: list[Finding] = []
    step: Step = start(instruments.config.name)
    while not isinstance(step, Found):
        match step:
            case FetchWellKnown():
                finding, delegated = await _read_well_known(instruments, step.host)
                findings.append(finding)
                step = step.answered(delegated)
            case LookUpSrv():
                try:
                    records = await instruments.resolver.resolve_srv(step.name)
                except RemoteFault as error:
                    return [*findings, fault(f"DNS: {step.name} cannot be looked up: {error}")], ()
                if records:
                    places = ", ".join(f"{record.target.rstrip('.')}:{record.port}" for record in records)
                    findings.append(fine(f"DNS: {step.name} leads to {places}"))
                step = step.answered(records, instruments.randomness.fraction)
    if not step.routes:
        findings.append(fault("DNS: the SRV records say that this server does not federate: mend them"))
    return findings, step.routes


async def _read_well_known(instruments: Instruments, host: str) -> tuple[Finding, ServerName | None]:
    url = f"https://{host}{PATH}"
    otherwise = "others look for SRV records, then at port 8448"
    try:
        response = await instruments.get(url, MAX_REDIRECTS)
    except RemoteFault as error:
        return note(f"{url} does not answer ({error}): {otherwise}"), None
    if response.status != 200:
        return note(f"{url} answers {response.status}: {otherwise}"), None
    try:
        delegated = parse_body(response.body)
    except (BadJson, BadIdentifier) as error:
        return fault(f'{url} is not understood ({error}): it should be {{"m.server": "HOST:PORT"}}'), None
    return fine(f"{url} leads to {delegated}"), delegated


async def _examine_route(instruments: Instruments, route: Route) -> AsyncIterator[Finding]:
    place = f"{route.host}:{route.port}"
    try:
        addresses = (
            [route.host]
            if ":" in route.host or is_ip_literal(ServerName(route.host))
            else await instruments.resolver.resolve_host(route.host)
        )
    except RemoteFault as error:
        yield fault(f"DNS: {route.host} cannot be looked up: {error}")
        return
    if not addresses:
        yield fault(f"DNS: {route.host} has no address: add an A or AAAA record")
        return
    if not any(AddressGuard().is_allowed(address) for address in addresses):
        shown = ", ".join(addresses[:MAX_ADDRESSES])
        yield note(f"DNS: {route.host} is {shown} here: from outside it has to be a public address")
    for address in addresses[:MAX_ADDRESSES]:
        yield await _examine_certificate(instruments, address, route)
    try:
        response = await instruments.ask(route, _KEYS)
    except RemoteFault as error:
        yield fault(f"{place} does not answer other servers: {error}")
        return
    yield _judge_keys(instruments, place, response)


async def _examine_certificate(instruments: Instruments, address: str, route: Route) -> Finding:
    shown = f"[{address}]:{route.port}" if ":" in address else f"{address}:{route.port}"
    name = route.certificate_name
    try:
        certificate = await instruments.look_at_certificate(address, route.port, name)
    except RemoteFault as error:
        return fault(f"TLS at {shown}: {error}: open the port, or mend the certificate for {name}")
    days = (certificate.valid_until_ms - instruments.clock.now_ms()) // _DAY_MS
    text = f"TLS at {shown}: the certificate for {name} is good for {days} days"
    return note(f"{text}: is it renewed by itself?") if days < EXPIRES_SOON_DAYS else fine(text)


def _judge_keys(instruments: Instruments, place: str, response: HttpResponse) -> Finding:
    if response.status != 200:
        return fault(
            f"{place} answers {response.status} to {_KEYS}: let the proxy hand /_matrix over, and let a listener "
            'there serve "federation"'
        )
    try:
        keys = parse_key_document(response.body, instruments.config.name, instruments.clock.now_ms())
    except ProtocolFault as error:
        return fault(f"{place} is not this server: {error}")
    if not _is_ours(instruments, keys):
        return fault(
            f"{place} has other keys than {instruments.config.signing_key_file}: is it another server?"
        )
    return fine(f"{place} answers with the keys of this server")


async def _ask_peer(instruments: Instruments, peer: ServerName) -> AsyncIterator[Finding]:
    finder = Finder(
        instruments.http,
        instruments.resolver,
        instruments.clock,
        instruments.randomness,
        instruments.config.federation.addresses,
    )
    try:
        route = (await finder.find_routes(peer))[0]
        response = await instruments.ask(route, _VERSION)
    except RemoteFault as error:
        yield fault(f"{peer} cannot be reached: {error}: is the way out open, to ports 443 and 8448?")
        return
    yield fine(f"{peer} can be reached")
    clock = _compare_clocks(instruments, peer, response)
    if clock is not None:
        yield clock
    # A notary that has no document of ours which is good for so long asks this server for it.
    least_ms = instruments.clock.now_ms() + OWN_VALIDITY_MS - _FRESH_MS
    path = (
        f"/_matrix/key/v2/query/{quote(instruments.config.name, safe='')}?minimum_valid_until_ts={least_ms}"
    )
    try:
        response = await instruments.ask(route, path)
    except RemoteFault as error:
        yield note(f"{peer} does not tell whether it reaches this server: {error}")
        return
    yield _judge_notary(instruments, peer, response, least_ms)


def _compare_clocks(instruments: Instruments, peer: ServerName, response: HttpResponse) -> Finding | None:
    try:
        theirs = parsedate_to_datetime(response.headers["date"]).astimezone(UTC)
    except (KeyError, ValueError, OverflowError):
        return None
    ours = datetime.fromtimestamp(instruments.clock.now_ms() / 1000, UTC)
    ahead_s = round((ours - theirs).total_seconds())
    if abs(ahead_s) <= CLOCK_OFF_S:
        return fine(f"clock: as that of {peer}")
    where = "ahead of" if ahead_s > 0 else "behind"
    return fault(f"clock: {abs(ahead_s)} s {where} that of {peer}: let it be set by NTP")


def _judge_notary(
    instruments: Instruments, peer: ServerName, response: HttpResponse, least_ms: int
) -> Finding:
    documents: object = None
    if response.status == 200:
        try:
            documents = parse_object(response.body).get("server_keys")
        except BadJson:
            documents = None
    if not isinstance(documents, list):
        return note(f"{peer} does not tell whether it reaches this server: it answered {response.status}")
    for document in (one for one in documents if isinstance(one, dict)):
        try:
            keys = check_key_document(document, instruments.config.name, instruments.clock.now_ms())
        except ProtocolFault:
            continue
        if not _is_ours(instruments, keys):
            return fault(
                f"{peer} knows other keys of this server: never lose signing.key; they expire in a week at the latest"
            )
        if keys.valid_until_ms >= least_ms:
            return fine(f"{peer} reaches this server: it has just got its keys")
    return fault(f"{peer} does not reach this server: what stands above says why, or a firewall on the way")


def _is_ours(instruments: Instruments, keys: ServerKeys) -> bool:
    return any(keys.verify_keys.get(key.key_id) == key.verify_key for key in instruments.keys)
