"""What is found: the timelines of rooms, what relates to what, and people."""

from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.http.client.event_context import EventContexts
from ranvier.http.client.relations import EventRelations
from ranvier.http.client.room_event_by_timestamp import RoomEventByTimestamp
from ranvier.http.client.room_history import RoomHistory
from ranvier.http.client.room_initial_sync import RoomInitialSync
from ranvier.http.client.search import ServerSideSearch
from ranvier.http.client.thread_subscriptions import ThreadSubscriptions
from ranvier.http.client.threads_list import ThreadsList
from ranvier.http.client.user_directory import UserDirectory
from ranvier.services.message_search.indexing import SearchIndexer
from ranvier.services.message_search.searching import MessageSearch
from ranvier.services.rooms.aggregations import Aggregations
from ranvier.services.rooms.context import Contexts
from ranvier.services.rooms.history import FillGap, History
from ranvier.services.rooms.pages import Pages
from ranvier.services.rooms.relations import Relations
from ranvier.services.rooms.remote_times import FetchNear
from ranvier.services.rooms.showing import Showing
from ranvier.services.rooms.snapshots import Snapshots
from ranvier.services.rooms.threads import Threads
from ranvier.services.rooms.timestamps import Timestamps
from ranvier.services.thread_subscriptions.listing import ThreadSubscriptionList
from ranvier.services.thread_subscriptions.subscribing import ThreadSubscribing
from ranvier.services.user_directory.indexing import DirectoryIndexer
from ranvier.services.user_directory.searching import UserSearch


def compose_history(foundation: Foundation, fill_gap: FillGap, fetch_near: FetchNear) -> Composed:
    db, clock = foundation.ports.db, foundation.ports.clock
    interner, nodes = foundation.interner, foundation.nodes
    showing = Showing(foundation.presenting, foundation.sight)
    aggregations = Aggregations(showing)
    pages = Pages(interner, nodes, showing, aggregations)
    directory = DirectoryIndexer(db, interner, nodes, clock)
    words = SearchIndexer(db, clock)
    return Composed(
        endpoints=[
            RoomHistory(History(db, clock, showing, pages, fill_gap)),
            RoomInitialSync(Snapshots(db, clock, foundation.sight, showing, pages)),
            EventContexts(Contexts(db, clock, showing, pages)),
            EventRelations(Relations(db, clock, showing, pages)),
            ThreadsList(Threads(db, clock, showing, aggregations)),
            ThreadSubscriptions(ThreadSubscribing(db, showing), ThreadSubscriptionList(db)),
            RoomEventByTimestamp(Timestamps(db, showing, fetch_near, fill_gap)),
            UserDirectory(UserSearch(db, interner, directory)),
            ServerSideSearch(MessageSearch(db, clock, interner, words, showing, pages)),
        ],
        workers=[directory, words],
    )
