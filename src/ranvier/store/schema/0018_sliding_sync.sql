-- What sliding sync connections know of their clients (docs/adr/0007-sliding-sync.md).

CREATE TABLE sliding_connections (
    life {int} PRIMARY KEY, -- random: another one for each time that the connection begins anew
    device_nid {int} NOT NULL REFERENCES devices(device_nid) ON DELETE CASCADE,
    conn_id {text} NOT NULL,
    answer {int} NOT NULL, -- which answer the client showed last: how many led to it, and random bits
    position {int} NOT NULL, -- and where that stands
    -- Up to where the client was told of what belongs to no room; null: never.
    account_data_upto {int},
    device_lists_upto {int},
    subscriptions_upto {int},
    required_states {bytes} NOT NULL, -- JSON array: what was asked for of rooms, as sliding_rooms numbers it
    used_ms {int} NOT NULL,
    UNIQUE (device_nid, conn_id)
);
CREATE INDEX sliding_connections_by_use ON sliding_connections (used_ms);

-- What a client was told of a room.
CREATE TABLE sliding_rooms (
    life {int} NOT NULL REFERENCES sliding_connections(life) ON DELETE CASCADE,
    room_nid {int} NOT NULL,
    upto {int}, -- null: live, up to the position of the connection
    depth {int} NOT NULL, -- how many of the newest events it has without a gap
    required_state {int} NOT NULL, -- index into required_states
    extensions {int} NOT NULL, -- bits: which extensions it has the room's data of
    membership {text} NOT NULL, -- the user's, as told
    is_direct {bool} NOT NULL,
    notifications {int}, -- the unread counts, as told; null: never
    highlights {int},
    PRIMARY KEY (life, room_nid)
) {without_rowid};

-- Where a user has read lately, in any room: unread counts change with it.
CREATE INDEX receipts_by_user ON receipts (user_nid, position) WHERE is_local = 1;
