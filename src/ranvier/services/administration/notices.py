"""Server notices: what the administrators have to tell a user, in a room that the server keeps for that.

Spec: client-server API, "Server Notices".
"""

import asyncio
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject, encode, parse_object
from ranvier.core.errors import InvalidParam, MatrixError, UserInUse
from ranvier.core.identifiers import EventID, RoomID, UserID
from ranvier.core.room_versions import RoomVersion
from ranvier.io.clock import Clock
from ranvier.services.accounts.creation import AccountCreation, NewAccount
from ranvier.services.accounts.profiles import AVATAR_URL, DISPLAYNAME, PROPAGATION
from ranvier.services.administration.people import act_as, check_local, get_account
from ranvier.services.requester import Requester
from ranvier.services.rooms.joining import Joining
from ranvier.services.rooms.member_content import member_content, member_draft
from ranvier.services.rooms.new_room import Founder, NewRoom, StateWish, build_drafts
from ranvier.services.rooms.sending import Sending
from ranvier.services.rooms.timeline import Draft, Timeline
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import memberships, profiles
from ranvier.store.tables.account_data import find_account_data, set_account_data
from ranvier.store.tables.accounts import Account
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.jobs import enqueue_job
from ranvier.store.tables.notice_rooms import find_notice_room, set_notice_room
from ranvier.store.tables.rooms import find_room

TAG: Final = "m.server_notice"


class NoticesStyle(msgspec.Struct, frozen=True, kw_only=True):
    """Who speaks, and how the room looks."""

    user_id: UserID
    display_name: str
    avatar_url: str | None
    room_name: str
    room_topic: str | None
    room_avatar_url: str | None
    auto_join: bool
    version: RoomVersion


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the request."""

    user_id: str
    content: JsonObject
    type: str = "m.room.message"
    state_key: str | None = None


class _Place(msgspec.Struct, frozen=True):
    """What there is of a user's notice room."""

    account: Account
    room_id: RoomID | None
    membership: str | None


class _MadeMeanwhile(MatrixError):
    """Another notice has made the room."""


class ServerNotices:
    """Sends them."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        clock: Clock,
        creation: AccountCreation,
        timeline: Timeline,
        sending: Sending,
        joining: Joining,
        style: NoticesStyle | None,
    ) -> None:
        """`style`: None: notices are off."""
        self._db = db
        self._interner = interner
        self._clock = clock
        self._creation = creation
        self._timeline = timeline
        self._sending = sending
        self._joining = joining
        self._style = style
        self._turn = asyncio.Lock()

    async def send(self, requester: Requester, notice: Notice, txn_id: str | None) -> EventID:
        """Tell a user something; the same `txn_id` of the same administrator tells it once.

        Raises: InvalidParam (notices are off, or the user is of another server, or deactivated); NotFound.
        """
        style = self._style
        if style is None:
            raise InvalidParam("Server notices are not enabled: see [server_notices] in the configuration.")
        user_id = UserID(notice.user_id)
        check_local(user_id, self._interner.own_server)
        speaker = await self._speaker(style)
        room_id = await self._find_room(style, speaker, user_id)
        if notice.state_key is None and txn_id is not None:
            # Of this administrator: two may use the same id.
            scoped = f"{requester.user_nid}/{txn_id}"
            return await self._sending.send_message(speaker, room_id, notice.type, notice.content, scoped)
        draft = Draft(
            sender=speaker.user_id, type=notice.type, state_key=notice.state_key, content=notice.content
        )
        (event_id,) = await self._timeline.send(room_id, [draft])
        return event_id

    async def _speaker(self, style: NoticesStyle) -> Requester:
        """The account that speaks, made when it is first needed. Raises: InvalidParam: it is somebody's."""
        try:
            await self._creation.check_free(style.user_id)
        except UserInUse:
            account = await self._db.read(get_account, style.user_id)
            if account.password_hash is not None or account.appservice_id is not None:
                raise InvalidParam(f"{style.user_id} is somebody's account.") from None
        else:
            try:
                new = NewAccount(user_id=style.user_id, displayname=style.display_name)
                await self._creation.create(new, None)
            except UserInUse:
                pass  # by another notice, just now
        speaker = act_as(await self._db.read(get_account, style.user_id))
        await self._db.write(_dress, speaker, style, self._clock.now_ms())
        return speaker

    async def _find_room(self, style: NoticesStyle, speaker: Requester, user_id: UserID) -> RoomID:
        """The notice room of a user, who is in it or invited."""
        async with self._turn:
            place = await self._db.read(_read_place, user_id)
            room_id = place.room_id
            if room_id is None:
                try:
                    room_id = await self._make_room(style, speaker, place.account)
                except _MadeMeanwhile:
                    place = await self._db.read(_read_place, user_id)
                    assert place.room_id is not None, "it was made"
                    return place.room_id
            elif place.membership not in (memberships.JOIN, memberships.INVITE):
                await self._timeline.send(room_id, [_invite(speaker, user_id)])
        if style.auto_join and place.membership != memberships.JOIN:
            await self._joining.join(act_as(place.account), room_id)
        return room_id

    async def _make_room(self, style: NoticesStyle, speaker: Requester, account: Account) -> RoomID:
        avatar = style.room_avatar_url
        wish = NewRoom(
            preset="private_chat",
            name=style.room_name,
            topic=style.room_topic,
            creation_content={"m.federate": False},
            initial_state=[] if avatar is None else [StateWish("m.room.avatar", {"url": avatar})],
            power_level_content_override={"users_default": -10},
        )
        profile = await self._db.read(profiles.find_profile, speaker.user_nid)
        founder = Founder(speaker.user_id, member_content("join", profile))
        drafts = build_drafts(wish, founder, style.version, (), None)
        drafts.append(_invite(speaker, account.user_id))

        def note(txn: WriteTxn, room_nid: int) -> None:
            if find_notice_room(txn, account.user_nid) is not None:
                raise _MadeMeanwhile("There is a room for notices already.")
            set_notice_room(txn, account.user_nid, room_nid)
            _tag(txn, account.user_nid, room_nid)

        return await self._timeline.create(style.version, drafts, note)


def _invite(speaker: Requester, user_id: UserID) -> Draft:
    return member_draft(speaker.user_id, user_id, member_content("invite"))


def _read_place(txn: ReadTxn, user_id: UserID) -> _Place:
    account = get_account(txn, user_id)
    if account.deactivated_ms is not None:
        raise InvalidParam("This account is deactivated.")
    room_id = find_notice_room(txn, account.user_nid)
    room = None if room_id is None else find_room(txn, room_id)
    if room is None:
        return _Place(account, None, None)
    now = memberships.find_membership(txn, room.room_nid, account.user_nid)
    return _Place(account, room_id, None if now is None else now.membership)


def _tag(txn: WriteTxn, user_nid: int, room_nid: int) -> None:
    stored = find_account_data(txn, user_nid, room_nid, "m.tag")
    content = {} if stored is None else parse_object(stored)
    tags = content.get("tags")
    content["tags"] = {**(tags if isinstance(tags, dict) else {}), TAG: {}}
    set_account_data(txn, user_nid, room_nid, "m.tag", encode(content))


def _dress(txn: WriteTxn, speaker: Requester, style: NoticesStyle, now_ms: int) -> None:
    """Name and picture as they are configured now, which its rooms are to show."""
    nid = speaker.user_nid
    has_changed = profiles.set_profile_field(txn, nid, DISPLAYNAME, encode(style.display_name))
    if style.avatar_url is None:
        has_changed |= profiles.delete_profile_field(txn, nid, AVATAR_URL)
    else:
        has_changed |= profiles.set_profile_field(txn, nid, AVATAR_URL, encode(style.avatar_url))
    if has_changed:
        enqueue_job(txn, PROPAGATION, speaker.user_id, b"{}", now_ms)
