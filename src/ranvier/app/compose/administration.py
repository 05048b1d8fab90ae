"""What administrators see and do, through the API that tools speak. docs/admin-api.md."""

from functools import partial

from ranvier.app.compose.accounts import Accounts
from ranvier.app.compose.federation import Remote
from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.app.compose.rooms import Rooms as InRooms
from ranvier.app.config import Config
from ranvier.core.identifiers import UserID
from ranvier.core.room_versions import get_room_version
from ranvier.http.admin.reports import ReportEndpoints
from ranvier.http.admin.room_history import (
    HistoryPurgeEndpoints,
    RoomDeletionEndpoints,
    RoomReadingEndpoints,
)
from ranvier.http.admin.rooms import RoomEndpoints, RoomEntryEndpoints
from ranvier.http.admin.server import (
    FederationEndpoints,
    RegistrationTokenAdminEndpoints,
    ServerEndpoints,
    ServerNoticeEndpoints,
)
from ranvier.http.admin.user_activity import (
    DeviceEndpoints,
    UserActivityEndpoints,
    UserRedactionEndpoints,
)
from ranvier.http.admin.users import UserEndpoints
from ranvier.services.accounts.moderation import Moderation
from ranvier.services.accounts.whois import look_up_whois
from ranvier.services.administration.accounts import AccountChanges
from ranvier.services.administration.deletion import DeletionOrders, Movers, RoomDeletion
from ranvier.services.administration.entering import Entering
from ranvier.services.administration.federation import Destinations
from ranvier.services.administration.history import FullSight, RoomReading
from ranvier.services.administration.notices import NoticesStyle, ServerNotices
from ranvier.services.administration.purging import DEPARTURES, DEPARTURES_KEPT_MS, HistoryPurge, RoomPurge
from ranvier.services.administration.rate_limits import RateLimits
from ranvier.services.administration.redacting import UserRedaction
from ranvier.services.administration.registration_tokens import TokenAdministration
from ranvier.services.administration.reports import Reports
from ranvier.services.administration.rooms import Rooms
from ranvier.services.administration.sessions import UserSessions
from ranvier.services.administration.tasks import DELETE_ROOM, PURGE_HISTORY, REDACT_USER, Tasks, Work
from ranvier.services.administration.users import Users
from ranvier.services.jobs import JobRunner, Run
from ranvier.services.push.pushers import Pushers
from ranvier.services.requester import Requester
from ranvier.services.rooms.aggregations import Aggregations
from ranvier.services.rooms.context import Contexts
from ranvier.services.rooms.hierarchy import Hierarchies
from ranvier.services.rooms.history import History, fill_nothing
from ranvier.services.rooms.pages import Pages
from ranvier.services.rooms.remote_spaces import no_remote_space
from ranvier.services.rooms.remote_times import fetch_nothing
from ranvier.services.rooms.sending import Sending
from ranvier.services.rooms.showing import Showing
from ranvier.services.rooms.timestamps import Timestamps


def compose_administration(
    foundation: Foundation,
    accounts: Accounts,
    rooms: InRooms,
    remote: Remote | None,
) -> Composed:
    """`remote`: None where there is no federation."""
    db, interner = foundation.ports.db, foundation.interner
    users = Users(db, interner)
    tasks = Tasks(db, foundation.ports.clock, foundation.ports.randomness)
    try_again = None if remote is None else remote.standings.heard_from
    of_rooms, workers = _rooms(foundation, rooms, tasks, accounts)
    tokens = TokenAdministration(db, foundation.ports.clock, foundation.ports.randomness)
    return Composed(
        endpoints=[
            *_users(foundation, accounts, users),
            *of_rooms,
            ServerEndpoints(tasks, users),
            FederationEndpoints(Destinations(db, interner, try_again)),
            RegistrationTokenAdminEndpoints(tokens),
            ReportEndpoints(Reports(db, interner)),
        ],
        workers=workers,
    )


def notices_user(config: Config) -> UserID | None:
    """The user id in whose name server notices come; None: there are none."""
    name = config.server_notices.user
    return None if name is None else UserID(f"@{name}:{config.name}")


def _users(foundation: Foundation, accounts: Accounts, users: Users) -> list[object]:
    ports = foundation.ports
    server, db, clock = ports.config.name, ports.db, ports.clock
    changes = AccountChanges(db, foundation.interner, clock, accounts.creation, accounts.passwords)
    sessions = UserSessions(server, db, clock, accounts.drafts, accounts.last_seen)
    return [
        UserEndpoints(users, changes, Moderation(server, db)),
        DeviceEndpoints(sessions, partial(look_up_whois, db)),
        UserActivityEndpoints(users, Pushers(db, clock), RateLimits(server, db)),
    ]


def _rooms(
    foundation: Foundation, in_rooms: InRooms, tasks: Tasks, accounts: Accounts
) -> tuple[list[object], list[JobRunner]]:
    ports, interner, timeline = foundation.ports, foundation.interner, foundation.timeline
    config, db, clock = ports.config, ports.db, ports.clock
    version = get_room_version(config.rooms.default_version)
    joining, membership = in_rooms.joining, in_rooms.membership
    rooms = Rooms(db, interner, clock, foundation.presenting)
    movers = Movers(membership.leave, timeline, in_rooms.creating, version)
    purge = RoomPurge(db, clock, foundation.live)
    deletion = RoomDeletion(db, interner, clock, tasks, movers, purge)
    history, redaction = HistoryPurge(db, clock, tasks), UserRedaction(db, interner, timeline, tasks)
    sending = Sending(db, foundation.live, timeline, _stay_away)
    notices = ServerNotices(
        db, interner, clock, accounts.creation, timeline, sending, joining, _notices_style(config)
    )
    works: dict[str, Work] = {
        DELETE_ROOM: deletion.run,
        PURGE_HISTORY: history.run,
        REDACT_USER: redaction.run,
    }
    runs: dict[str, Run] = {kind: tasks.job(work) for kind, work in works.items()}
    workers = [JobRunner(db, clock, ports.randomness, kind, run) for kind, run in runs.items()]
    forget = purge.forget_departures
    workers.append(JobRunner(db, clock, ports.randomness, DEPARTURES, forget, max_wait_ms=DEPARTURES_KEPT_MS))
    endpoints: list[object] = [
        RoomEndpoints(rooms, Hierarchies(db, interner, no_remote_space, clock, sees_all=True)),
        RoomEntryEndpoints(Entering(db, interner, timeline, joining, membership), rooms, in_rooms.aliases),
        RoomReadingEndpoints(_reading(foundation)),
        RoomDeletionEndpoints(DeletionOrders(db, config.name, clock, tasks), rooms, tasks),
        HistoryPurgeEndpoints(history, tasks),
        UserRedactionEndpoints(redaction, tasks),
        ServerNoticeEndpoints(notices),
    ]
    return endpoints, workers


def _stay_away(_requester: Requester) -> None:
    """Who speaks for the server is not online for that."""


def _reading(foundation: Foundation) -> RoomReading:
    """Reading with the eyes of whoever may see everything that is here, and without a way to other servers."""
    db, clock = foundation.ports.db, foundation.ports.clock
    showing = Showing(foundation.presenting, FullSight())
    pages = Pages(foundation.interner, foundation.nodes, showing, Aggregations(showing))
    return RoomReading(
        db,
        History(db, clock, showing, pages, fill_nothing),
        Contexts(db, clock, showing, pages),
        Timestamps(db, showing, fetch_nothing, fill_nothing),
    )


def _notices_style(config: Config) -> NoticesStyle | None:
    user_id, notices = notices_user(config), config.server_notices
    if user_id is None:
        return None
    return NoticesStyle(
        user_id=user_id,
        display_name=notices.display_name,
        avatar_url=notices.avatar_url,
        room_name=notices.room_name,
        room_topic=notices.room_topic,
        room_avatar_url=notices.room_avatar_url,
        auto_join=notices.auto_join,
        version=get_room_version(config.rooms.default_version),
    )
