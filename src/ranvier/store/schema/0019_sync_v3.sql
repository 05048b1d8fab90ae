-- Sync v3 of 2021 (docs/adr/0008-sync-v3-2021.md). The proxy's own database has these tables, too.

CREATE TABLE sync_v3_sessions (
    session_id {int} PRIMARY KEY, -- a position: never used again
    device {text} NOT NULL,
    is_classic {bool} NOT NULL, -- 1: the device's classic sync, which has no tokens of sync v3
    events {int} NOT NULL, -- up to where the client has confirmed each
    to_device {int} NOT NULL,
    used_ms {int} NOT NULL
);
CREATE INDEX sync_v3_sessions_by_device ON sync_v3_sessions (device, used_ms);
CREATE INDEX sync_v3_sessions_by_use ON sync_v3_sessions (used_ms);
CREATE UNIQUE INDEX sync_v3_sessions_classic ON sync_v3_sessions (device) WHERE is_classic = 1;

-- What a session asked for, each version of it: older tokens name older ones.
CREATE TABLE sync_v3_filters (
    filter_id {int} PRIMARY KEY, -- a position
    session_id {int} NOT NULL REFERENCES sync_v3_sessions(session_id) ON DELETE CASCADE,
    request {bytes} NOT NULL -- JSON
);
CREATE INDEX sync_v3_filters_by_session ON sync_v3_filters (session_id, filter_id);
