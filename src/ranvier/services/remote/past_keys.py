"""Keys of servers that are gone, as others remember them: for what those servers signed long ago, and nothing else.

Most old rooms rest on events of servers that nobody can ask any more. Somebody has to be believed about those; so
that it never lets them speak for a server that is there:

1. A server is gone if it does not answer now, and no key of it is known here that was good within GONE_MS.
2. Only what is older than GONE_MS counts, both what was signed and the document that names the key.
3. Nothing of it is written down. When the server answers, its own word counts alone.

See "Events that cannot be checked" in docs/adr/0003-federation.md.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from ranvier.core.federation.server_keys import ServerKeys
from ranvier.store.tables.server_keys import ServerKey

GONE_MS: Final = 7 * 24 * 3_600_000
"""As long as a key document may be good. Whoever was there within that time may just be out of reach."""


def is_gone(keys: Iterable[ServerKey], failures: int, now_ms: int) -> bool:
    """Whether a server, of which `keys` are known, counts as gone. `failures`: to ask it, up to now."""
    return failures > 0 and all(key.is_old or key.valid_until_ms < now_ms - GONE_MS for key in keys)


def is_past(signed_ms: int | None, now_ms: int) -> bool:
    """Whether something was signed long ago. None: in rooms where nobody looks at that."""
    return signed_ms is None or signed_ms < now_ms - GONE_MS


def list_past_keys(document: ServerKeys, now_ms: int) -> dict[str, ServerKey]:
    """The keys of a document that ended long ago, each good up to its end; none of one that did not."""
    ended_ms = document.valid_until_ms
    if ended_ms >= now_ms - GONE_MS:
        return {}
    ends: Mapping[str, tuple[bytes, int]] = {
        **{key_id: (key.public_key, ended_ms) for key_id, key in document.verify_keys.items()},
        **{
            key_id: (old.key.public_key, min(old.expired_ts, ended_ms))
            for key_id, old in document.old_verify_keys.items()
        },
    }
    return {key_id: ServerKey(0, key_id, key, end_ms, is_old=True) for key_id, (key, end_ms) in ends.items()}
