"""Rooms: sending into them; who is in them; how they are made and found."""

import msgspec

from ranvier.app.compose.appservices import Bridges
from ranvier.app.compose.foundation import Composed, Foundation, offered_versions
from ranvier.core.room_versions import get_room_version
from ranvier.http.client.create_room import CreateRoom
from ranvier.http.client.delayed_events import DelayedEventEndpoints
from ranvier.http.client.directory import Directory
from ranvier.http.client.list_public_rooms import ListPublicRooms
from ranvier.http.client.mutual_rooms import MutualRoomsEndpoint
from ranvier.http.client.report_content import ReportContent
from ranvier.http.client.room_membership import RoomMembership
from ranvier.http.client.room_send import RoomSend
from ranvier.http.client.room_state import RoomStateEndpoints
from ranvier.http.client.room_summary import RoomSummaries
from ranvier.http.client.room_upgrades import RoomUpgrades
from ranvier.http.client.space_hierarchy import SpaceHierarchy
from ranvier.services.delayed_events.scheduling import DelayedEvents, DelayLimits
from ranvier.services.delayed_events.sending import DelayedSending
from ranvier.services.ephemeral.presence import PresenceTracker
from ranvier.services.rooms.aliases import Aliases, FetchAlias
from ranvier.services.rooms.canonical_alias import CanonicalAliases
from ranvier.services.rooms.changing_state import ChangingState
from ranvier.services.rooms.creating import Creating
from ranvier.services.rooms.hierarchy import Hierarchies
from ranvier.services.rooms.inviting import Inviting
from ranvier.services.rooms.joining import Joining
from ranvier.services.rooms.membership import Membership
from ranvier.services.rooms.mutual_rooms import MutualRooms
from ranvier.services.rooms.public_rooms import FetchPage, PublicRooms
from ranvier.services.rooms.remote import RemoteRooms
from ranvier.services.rooms.remote_spaces import RemoteSpaces, no_remote_space, no_remote_summary
from ranvier.services.rooms.reporting import Reporting
from ranvier.services.rooms.room_summary import Previews
from ranvier.services.rooms.sending import Sending
from ranvier.services.rooms.state import RoomState
from ranvier.services.rooms.succession import Successions
from ranvier.services.rooms.sweeping import sweep_rooms
from ranvier.services.rooms.upgrading import Upgrading
from ranvier.services.rooms.wholeness import Wholeness
from ranvier.services.sweeping import Sweeper


class Rooms(msgspec.Struct, frozen=True):
    """What more than one area does with rooms."""

    inviting: Inviting
    joining: Joining
    membership: Membership
    creating: Creating
    aliases: Aliases


def lay_rooms(
    foundation: Foundation, remote: RemoteRooms, fetch_alias: FetchAlias, bridges: Bridges
) -> Rooms:
    """`fetch_alias` asks other servers' directories."""
    config, db = foundation.ports.config, foundation.ports.db
    interner, timeline = foundation.interner, foundation.timeline
    inviting = Inviting(db, interner, timeline, remote, bridges.queries.summon_users)
    return Rooms(
        inviting,
        Joining(db, interner, timeline, remote),
        Membership(db, timeline, inviting, remote),
        Creating(
            db,
            interner,
            timeline,
            inviting,
            foundation.ports.clock,
            get_room_version(config.rooms.default_version),
            bridges.registry,
            offered_versions(config),
        ),
        lay_aliases(foundation, fetch_alias, bridges),
    )


def lay_aliases(foundation: Foundation, fetch_alias: FetchAlias, bridges: Bridges) -> Aliases:
    """`fetch_alias` asks other servers' directories."""
    return Aliases(
        foundation.ports.db,
        foundation.interner,
        foundation.sight,
        foundation.timeline,
        foundation.ports.clock,
        fetch_alias,
        bridges.registry,
        bridges.queries.summon_alias,
    )


def compose_rooms(
    foundation: Foundation,
    rooms: Rooms,
    fetch_page: FetchPage,
    spaces: RemoteSpaces | None,
    presence: PresenceTracker,
) -> Composed:
    """`fetch_page` asks other servers' directories, `spaces` asks them about rooms."""
    fetch_space = no_remote_space if spaces is None else spaces.fetch
    fetch_summary = no_remote_summary if spaces is None else spaces.fetch_summary
    db, clock = foundation.ports.db, foundation.ports.clock
    interner, timeline, sight = foundation.interner, foundation.timeline, foundation.sight
    state = RoomState(
        db, interner, foundation.nodes, sight, foundation.presenting, Wholeness(db, clock), clock
    )
    canonical_aliases = CanonicalAliases(db, interner, rooms.aliases.find_room)
    changing_state = ChangingState(
        timeline, rooms.membership, rooms.inviting, rooms.joining, canonical_aliases, Successions(db)
    )
    sending = Sending(db, foundation.live, timeline, presence.note_activity)
    delays = foundation.ports.config.delayed_events
    limits = DelayLimits(delays.max_delay_ms, delays.max_scheduled)
    delayed = DelayedEvents(db, clock, foundation.ports.randomness, limits)
    delayed_sending = DelayedSending(db, clock, sending, changing_state)
    return Composed(
        endpoints=[
            RoomSend(sending, delayed),
            DelayedEventEndpoints(delayed, delayed_sending),
            CreateRoom(rooms.creating),
            RoomMembership(rooms.membership, rooms.joining, rooms.aliases),
            RoomStateEndpoints(state, changing_state, delayed),
            Directory(rooms.aliases),
            ListPublicRooms(PublicRooms(db, interner, fetch_page)),
            RoomSummaries(Previews(db, interner, fetch_summary), rooms.aliases),
            RoomUpgrades(Upgrading(db, interner, timeline, rooms.creating)),
            SpaceHierarchy(Hierarchies(db, interner, fetch_space, clock)),
            MutualRoomsEndpoint(MutualRooms(db, interner)),
            ReportContent(Reporting(db, interner, clock)),
        ],
        workers=[delayed_sending, Sweeper("originals and requests", db, clock, sweep_rooms)],
    )
