-- What a proxy for sync v3 (docs/adr/0008-sync-v3-2021.md) has heard from its upstream. Besides these it has the
-- tables of 0000_positions and 0019_sync_v3 of the homeserver.

-- An access token of the upstream, by its hash: the token itself is not kept.
CREATE TABLE sync_v3_devices (
    device_nid {int} PRIMARY KEY, -- a position
    token_hash {text} NOT NULL UNIQUE, -- SHA-256, hexadecimal
    user_id {text} NOT NULL,
    since {text}, -- the upstream's token up to which all is stored; null: nothing yet
    kept_from {int} NOT NULL, -- facts that ended before this position are gone
    used_ms {int} NOT NULL
);
CREATE INDEX sync_v3_devices_by_use ON sync_v3_devices (used_ms);

-- Each thing that was true for a device's user, and for how long. A fact that holds now has the largest number as its end.
CREATE TABLE sync_v3_facts (
    device_nid {int} NOT NULL REFERENCES sync_v3_devices(device_nid) ON DELETE CASCADE,
    room_id {text} NOT NULL, -- '' is none
    kind {text} NOT NULL, -- member, state, account, membership, typing, activity, summary
    type {text} NOT NULL, -- of the event; '' where the kind says it
    state_key {text} NOT NULL,
    from_position {int} NOT NULL, -- from here on, itself included
    to_position {int} NOT NULL, -- up to here, itself excluded
    value {bytes} NOT NULL, -- JSON
    PRIMARY KEY (device_nid, room_id, kind, type, state_key, from_position)
) {without_rowid};
CREATE INDEX sync_v3_facts_by_kind ON sync_v3_facts (device_nid, kind, from_position);
CREATE INDEX sync_v3_facts_by_end ON sync_v3_facts (device_nid, to_position);

CREATE TABLE sync_v3_messages (
    device_nid {int} NOT NULL REFERENCES sync_v3_devices(device_nid) ON DELETE CASCADE,
    position {int} NOT NULL,
    message {bytes} NOT NULL, -- JSON
    PRIMARY KEY (device_nid, position)
) {without_rowid};
