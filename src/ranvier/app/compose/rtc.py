"""Calls: TURN servers and the LiveKit media server that the administrator names."""

from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.app.config import Config
from ranvier.core.canonical_json import JsonObject
from ranvier.http.client.voip import LIVEKIT_SERVICE, LiveKit, RtcTransports, Voip
from ranvier.services.accounts.openid import OpenId
from ranvier.services.remote.requests import Requests
from ranvier.services.rtc.livekit import LiveKitServer, LiveKitTokens, OpenIdProofs
from ranvier.services.rtc.relays import Relays


def compose_rtc(foundation: Foundation, requests: Requests | None) -> Composed:
    """`requests` ask other servers; None where there is no federation."""
    ports = foundation.ports
    config, turn = ports.config, ports.config.turn
    relays = None
    if turn.uris and turn.shared_secret is not None:
        relays = Relays(ports.clock, turn.uris, turn.shared_secret, turn.lifetime_s)
    endpoints: list[object] = [Voip(relays), RtcTransports(rtc_transports(config))]
    livekit = livekit_server(config)
    if livekit is not None:
        openid = OpenId(config.name, ports.db, ports.clock, ports.randomness)
        tokens = LiveKitTokens(foundation.interner, ports.db, ports.clock, livekit)
        endpoints.append(LiveKit(config.name, tokens, OpenIdProofs(config.name, openid.get_user, requests)))
    return Composed(endpoints=endpoints)


def livekit_server(config: Config) -> LiveKitServer | None:
    rtc = config.rtc
    if rtc.livekit_url is None or rtc.livekit_key is None or rtc.livekit_secret is None:
        return None
    return LiveKitServer(rtc.livekit_url, rtc.livekit_key, rtc.livekit_secret)


def rtc_transports(config: Config) -> list[JsonObject]:
    """What clients are told of the ways in which calls can go. Spec: MSC4143."""
    if livekit_server(config) is None or config.public_base_url is None:
        return []
    service = config.public_base_url.rstrip("/") + LIVEKIT_SERVICE
    return [{"type": "livekit", "livekit_service_url": service}]
