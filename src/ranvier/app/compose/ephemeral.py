"""What is true for a while: receipts, typing, presence."""

from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.http.client.presence import PresenceEndpoints
from ranvier.http.client.read_markers import ReadMarkerEndpoints
from ranvier.http.client.receipts import ReceiptEndpoints
from ranvier.http.client.typing import TypingEndpoints
from ranvier.services.ephemeral.presence import PresenceKeeper, PresenceTracker
from ranvier.services.ephemeral.receipts import Receipts
from ranvier.services.ephemeral.typing import Typing, TypingExpiry


def compose_ephemeral(foundation: Foundation, presence: PresenceTracker, typing: Typing) -> Composed:
    db, live, clock = foundation.ports.db, foundation.live, foundation.ports.clock
    receipts = Receipts(db, live, clock, presence)
    return Composed(
        endpoints=[
            ReceiptEndpoints(receipts),
            ReadMarkerEndpoints(receipts),
            TypingEndpoints(typing),
            PresenceEndpoints(presence),
        ],
        workers=[TypingExpiry(typing), PresenceKeeper(presence)],
    )
