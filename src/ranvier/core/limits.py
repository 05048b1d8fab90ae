"""Every number that the specification fixes, in one place."""

from typing import Final

# Events: server-server API, "Size limits" (client-server API, "Size limits").
MAX_EVENT_BYTES: Final = 65_536
"""Of a whole PDU as canonical JSON, signatures included."""
MAX_EVENT_FIELD_BYTES: Final = 255
"""Of sender, room_id, event_id, type and state_key each."""
MAX_PREV_EVENTS: Final = 20
MAX_AUTH_EVENTS: Final = 10

# Server-server API, "Transactions".
MAX_TRANSACTION_PDUS: Final = 50
MAX_TRANSACTION_EDUS: Final = 100

# Appendices, "Identifier grammar".
MAX_IDENTIFIER_BYTES: Final = 255
MAX_TO_DEVICE_MESSAGE_ID_CHARS: Final = 32

# Appendices, "Canonical JSON".
MAX_SAFE_INTEGER: Final = 2**53 - 1
MIN_SAFE_INTEGER: Final = -(2**53) + 1

# Rooms v1 to v5 allow a depth up to what a signed 64-bit integer holds.
MAX_DEPTH_UNSAFE: Final = 2**63 - 1

# Not in the specification: bounds of our own on what a parser walks into.
MAX_JSON_DEPTH: Final = 100
"""Nesting of arrays and objects in any JSON that comes from outside."""
MAX_JSON_BYTES: Final = 64 * 1024 * 1024
"""Of one JSON text, unless the caller sets a bound of its own: less for a request, more for a huge room."""
