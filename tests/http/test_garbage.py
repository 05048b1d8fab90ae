"""What a request worked on is gone when it is answered: it does not wait for cycles to be looked for.

That is rare here, so what waits for it is much; and what a cycle keeps may be a body, or a page of events.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from itertools import count

from .client import Answer, Client, segment

V3 = "/_matrix/client/v3"
SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
TIMES = 6

numbers = count()

Act = Callable[[Client, Client, str], Awaitable[Answer]]


async def come_and_go(_alice: Client, bob: Client, room: str) -> Answer:
    await bob.post(f"{V3}/rooms/{room}/join", {})
    return await bob.post(f"{V3}/rooms/{room}/leave", {})


WINDOW = {"ranges": [[0, 5]], "timeline_limit": 3, "required_state": [["*", "*"]]}
SEARCH = {"search_categories": {"room_events": {"search_term": "x"}}}

ACTS: dict[str, tuple[int, Act]] = {
    "sends": (200, lambda a, _b, r: a.put(f"{V3}/rooms/{r}/send/m.x/{next(numbers)}", {})),
    "repeats": (200, lambda a, _b, r: a.put(f"{V3}/rooms/{r}/send/m.x/again", {})),
    "may not send": (403, lambda _a, b, r: b.put(f"{V3}/rooms/{r}/send/m.x/{next(numbers)}", {})),
    "names": (200, lambda a, _b, r: a.put(f"{V3}/rooms/{r}/state/m.room.name", {"name": f"{next(numbers)}"})),
    "may not name": (403, lambda _a, b, r: b.put(f"{V3}/rooms/{r}/state/m.room.name", {"name": "x"})),
    "no JSON": (400, lambda a, _b, r: a.request("PUT", f"{V3}/rooms/{r}/send/m.x/1", body=b"{")),
    "no such event": (404, lambda a, _b, r: a.get(f"{V3}/rooms/{r}/event/%24{next(numbers)}")),
    "no such alias": (404, lambda a, _b, _r: a.post(f"{V3}/join/%23{next(numbers)}:test", {})),
    "reads": (200, lambda a, _b, r: a.get(f"{V3}/rooms/{r}/messages?dir=b")),
    "may not read": (403, lambda _a, b, r: b.get(f"{V3}/rooms/{r}/messages?dir=b")),
    "syncs": (200, lambda a, _b, _r: a.get(f"{V3}/sync?timeout=0")),
    "syncs from nowhere": (400, lambda a, _b, _r: a.get(f"{V3}/sync?timeout=0&since=nowhere")),
    "slides": (200, lambda a, _b, _r: a.post(f"{SLIDING}?timeout=0", {"lists": {"x": WINDOW}})),
    "searches": (200, lambda a, _b, _r: a.post(f"{V3}/search", SEARCH)),
    "asks for keys": (200, lambda a, _b, _r: a.post(f"{V3}/keys/query", {"device_keys": {"@bob:test": []}})),
    "wrong token": (401, lambda a, _b, _r: a.as_user("wrong").get(f"{V3}/sync")),
    "no such file": (404, lambda a, _b, _r: a.get("/_matrix/client/v1/media/download/test/nothing")),
    "comes and goes": (200, come_and_go),  # the last: who left may read what was before
}


async def test_requests_leave_no_garbage(homeserver) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    made = await alice.post(f"{V3}/createRoom", {"preset": "public_chat"})
    room = segment(made.json["room_id"])
    left: dict[str, int] = {}
    for what, (status, act) in ACTS.items():
        for _ in range(2):
            assert (await act(alice, bob, room)).status == status, what
        gc.collect()
        gc.disable()
        try:
            for _ in range(TIMES):
                await act(alice, bob, room)
            await asyncio.sleep(0)
            left[what] = gc.collect() // TIMES
        finally:
            gc.enable()
    # Workers leave a little now and then.
    assert not {what: number for what, number in left.items() if number > 5}
