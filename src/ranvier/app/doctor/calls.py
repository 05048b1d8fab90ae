"""Whether calls can work: the LiveKit media server, and relays."""

from collections.abc import AsyncIterator
from typing import Final

from ranvier.app.compose.rtc import livekit_server
from ranvier.app.doctor.findings import Finding, Instruments, fault, fine, note
from ranvier.core.jwt import sign_jwt
from ranvier.io.ports import RemoteFault

_VALID_S: Final = 60


async def examine_calls(instruments: Instruments) -> AsyncIterator[Finding]:
    config = instruments.config
    rtc, server = config.rtc, livekit_server(config)
    if server is None:
        given = [rtc.livekit_url, rtc.livekit_key, rtc.livekit_secret]
        if any(given):
            yield fault("calls: rtc needs livekit_url, livekit_key and livekit_secret")
        else:
            yield note("calls: Element Call has no media server (rtc.livekit_url)")
    elif config.public_base_url is None:
        yield fault("calls: they need public_base_url")
    else:
        yield await _ask_livekit(instruments, server.url, server.key, server.secret)
    if not config.turn.uris:
        yield note("calls: no relay for those of two people (turn.uris)")
    elif config.turn.shared_secret is None:
        yield fault("calls: turn.uris needs turn.shared_secret")
    else:
        yield fine(f"calls: {len(config.turn.uris)} relays are told to clients")


async def _ask_livekit(instruments: Instruments, url: str, key: str, secret: str) -> Finding:
    """LiveKit says whether it takes a token of ours."""
    now_s = instruments.clock.now_ms() // 1000
    claims = {"iss": key, "sub": "doctor", "nbf": now_s, "exp": now_s + _VALID_S}
    token = sign_jwt(claims | {"video": {"room": "doctor", "roomJoin": True}}, secret)
    base = url.replace("wss://", "https://", 1).replace("ws://", "http://", 1).rstrip("/")
    try:
        response = await instruments.get(f"{base}/rtc/validate?access_token={token}")
    except RemoteFault as error:
        return fault(f"calls: {url} does not answer: {error}")
    match response.status:
        case 401 | 403:
            return fault(
                f"calls: {url} does not take tokens of rtc.livekit_key: the key or its secret is not so there"
            )
        case status if status >= 500:
            return fault(f"calls: {url} answers {status}")
        case _:
            return fine(f"calls: {url} answers, and takes our tokens")
