"""EDUs of peers: typing and presence of their users.

Source: docs/federation-2014.md, "EDUs".
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadIdentifier
from ranvier.core.federation.edus import MAX_PRESENCE_ITEMS, Presence, PresenceItem
from ranvier.core.identifiers import ServerName, UserID, parse_user_id
from ranvier.core.limits import MAX_SAFE_INTEGER
from ranvier.historical.federation_2014.naming import server_of_user
from ranvier.historical.federation_2014.outgoing import Outgoing
from ranvier.historical.federation_2014.passing import Subscriptions
from ranvier.io.clock import Clock
from ranvier.services.ephemeral.typing import Typing
from ranvier.services.federation.edus import REMOTE_TYPING_MS, PresenceEdus
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables import historical_contexts as contexts
from ranvier.store.tables import memberships, typing
from ranvier.store.tables.interned import Interner, find_user_nids

log = logging.getLogger(__name__)

_STATES: Final = ("online", "offline", "unavailable", "busy")


class Edus:
    """Takes them. Whatever is malformed, or of a user of another server, is passed over."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        typing: Typing,
        presence: PresenceEdus | None,
        subscriptions: Subscriptions,
        outgoing: Outgoing,
        clock: Clock,
    ) -> None:
        """`presence` None: this server keeps none."""
        self._db = db
        self._interner = interner
        self._typing = typing
        self._presence = presence
        self._subscriptions = subscriptions
        self._outgoing = outgoing
        self._clock = clock

    async def take_all(self, origin: ServerName, edus: Sequence[object]) -> None:
        """Raises: StoreFault."""
        for edu in edus:
            if not isinstance(edu, dict) or not isinstance(edu.get("content"), dict):
                continue
            content: JsonObject = edu["content"]
            match edu.get("edu_type"):
                case "m.typing":
                    await self._take_typing(origin, content)
                case "m.presence":
                    await self._take_presence(origin, content)
                case "m.presence_invite":
                    self._accept_observer(origin, content)
                case other:
                    log.debug("an EDU of %s is ignored: %.100r", origin, other)

    async def _take_typing(self, origin: ServerName, content: JsonObject) -> None:
        context, user_id, is_typing = (content.get(key) for key in ("room_id", "user_id", "typing"))
        if (
            not isinstance(context, str)
            or "\0" in context
            or server_of_user(user_id) != origin
            or type(is_typing) is not bool
        ):
            return
        until_ms = self._clock.now_ms() + REMOTE_TYPING_MS if is_typing else None
        await self._db.write(self._store_typing, context, UserID(str(user_id)), until_ms)
        if until_ms is not None:
            self._typing.expect(until_ms)

    def _store_typing(self, txn: WriteTxn, name: str, user_id: UserID, until_ms: int | None) -> None:
        context = contexts.find_context(txn, name)
        user_nid = find_user_nids(txn, self._interner, (user_id,)).get(user_id)
        if context is None or context.room_nid is None or user_nid is None:
            return
        now = memberships.find_membership(txn, context.room_nid, user_nid)
        if now is None or now.membership != memberships.JOIN:
            return
        if until_ms is None:
            typing.stop_typing(txn, context.room_nid, user_nid)
        else:
            typing.start_typing(txn, context.room_nid, user_nid, until_ms)

    async def _take_presence(self, origin: ServerName, content: JsonObject) -> None:
        if self._presence is None:
            return
        items = tuple(_parse_items(origin, content.get("push")))
        if items:
            await self._presence.presence(origin, Presence(items))
        polled = self._own_users(content.get("poll"))
        self._subscriptions.add(origin, polled)
        self._subscriptions.remove(origin, self._own_users(content.get("unpoll")))
        if polled:
            await self._subscriptions.tell_now(origin, polled)

    def _accept_observer(self, origin: ServerName, content: JsonObject) -> None:
        """A user of the peer wants to see when one of ours is there: that is granted, as in 2014."""
        observed, observer = content.get("observed_user"), content.get("observer_user")
        if server_of_user(observer) != origin or not self._own_users([observed]):
            return
        self._subscriptions.add(origin, self._own_users([observed]))
        answer = {"observed_user": observed, "observer_user": observer}
        self._outgoing.add_edu(origin, "m.presence_accept", answer, ("accept", observed, observer))

    def _own_users(self, value: object) -> list[UserID]:
        users = value[:MAX_PRESENCE_ITEMS] if isinstance(value, list) else []
        return [UserID(user) for user in users if server_of_user(user) == self._interner.own_server]


def _parse_items(origin: ServerName, push: object) -> Iterator[PresenceItem]:
    """What is said about users of the peer itself; `state` and `mtime_age` were renamed in September 2014."""
    for item in push[:MAX_PRESENCE_ITEMS] if isinstance(push, list) else ():
        if not isinstance(item, dict) or server_of_user(item.get("user_id")) != origin:
            continue
        state: Any = item.get("state", item.get("presence"))
        age = item.get("mtime_age", item.get("last_active_ago"))
        status = item.get("status_msg")
        if state not in _STATES:
            continue
        try:
            user_id = parse_user_id(item["user_id"])
        except BadIdentifier:
            continue
        is_age = type(age) is int and 0 <= age <= MAX_SAFE_INTEGER
        yield PresenceItem(
            user_id,
            state,
            age if is_age else None,
            status[:1_000] if isinstance(status, str) else None,
            state == "online",
        )
