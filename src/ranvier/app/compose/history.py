"""What is found: the timelines of rooms, what relates to what, and people."""

from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.http.client.event_context import EventContexts
from ranvier.http.client.relations import EventRelations
from ranvier.http.client.room_event_by_timestamp import RoomEventByTimestamp
from ranvier.http.client.room_history import RoomHistory
from ranvier.http.client.room_initial_sync import RoomInitialSync
from ranvier.http.client.search import ServerSideSearch
from ranvier.http.client.threads_list import ThreadsList
from ranvier.http.client.user_directory import UserDirectory
from ranvier.services.message_search.indexing import SearchIndexer
from ranvier.services.message_search.searching import MessageSearch
from ranvier.services.rooms.aggregations import Aggregations
from ranvier.services.rooms.context import Contexts
from ranvier.services.rooms.history import History
from ranvier.services.rooms.pages import Pages
from ranvier.services.rooms.relations import Relations
from ranvier.services.rooms.showing import Showing
from ranvier.services.rooms.snapshots import Snapshots
from ranvier.services.rooms.threads import Threads
from ranvier.services.rooms.timestamps import Timestamps
from ranvier.services.user_directory.indexing import DirectoryIndexer
from ranvier.services.user_directory.searching import UserSearch


def compose_history(foundation: Foundation) -> Composed:
    db, clock = foundation.ports.db, foundation.ports.clock
    showing = Showing(foundation.presenting, foundation.sight)
    aggregations = Aggregations(showing)
    pages = Pages(foundation.interner, foundation.nodes, showing, aggregations)
    return Composed(
        endpoints=[
            RoomHistory(History(db, clock, showing, pages)),
            RoomInitialSync(Snapshots(db, clock, foundation.sight, showing, pages)),
            EventContexts(Contexts(db, clock, showing, pages)),
            EventRelations(Relations(db, clock, showing, pages)),
            ThreadsList(Threads(db, clock, showing, aggregations)),
            RoomEventByTimestamp(Timestamps(db, showing)),
            UserDirectory(UserSearch(db, foundation.interner)),
            ServerSideSearch(MessageSearch(db, clock, foundation.interner, showing, pages)),
        ],
        workers=[
            DirectoryIndexer(db, foundation.interner, foundation.nodes, clock),
            SearchIndexer(db, clock),
        ],
    )
