"""Sticky events: for how long. Spec: MSC4354, under the name that its member has until it is accepted."""

from typing import Final

import msgspec

MAX_DURATION_MS: Final = 3_600_000

_MARK: Final = b'"msc4354_sticky":'


class _Event(msgspec.Struct, frozen=True):
    msc4354_sticky: object = None


_EVENT: Final = msgspec.json.Decoder(_Event)


def sticky_duration_ms(json: bytes) -> int | None:
    """For how long an event is sticky, from its bytes: milliseconds, at most an hour; None: it is not.

    Cost: one look through the bytes for nearly every event.
    """
    if _MARK not in json:
        return None
    sticky = _EVENT.decode(json).msc4354_sticky
    duration = sticky.get("duration_ms") if isinstance(sticky, dict) else None
    if type(duration) is not int or duration < 0:
        return None
    return min(duration, MAX_DURATION_MS)
