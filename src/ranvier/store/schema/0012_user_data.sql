-- What users keep here, and what they show each other besides events.

CREATE TABLE account_data (
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    room_nid {int} NOT NULL, -- 0: global
    type {text} NOT NULL,
    content {bytes}, -- JSON; null: deleted, which clients have to hear of too
    position {int} NOT NULL,
    PRIMARY KEY (user_nid, room_nid, type)
) {without_rowid};
CREATE INDEX account_data_by_position ON account_data (user_nid, position);

-- Derived from m.ignored_user_list: who ignores the sender of an event.
CREATE TABLE ignored_users (
    ignored_nid {int} NOT NULL REFERENCES users(user_nid),
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    PRIMARY KEY (ignored_nid, user_nid)
) {without_rowid};
CREATE INDEX ignored_users_by_user ON ignored_users (user_nid);

CREATE TABLE profile_fields (
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    field {text} NOT NULL, -- displayname, avatar_url, m.tz, …
    value {bytes} NOT NULL, -- JSON
    PRIMARY KEY (user_nid, field)
) {without_rowid};

CREATE TABLE profile_versions (
    user_nid {int} PRIMARY KEY REFERENCES users(user_nid),
    position {int} NOT NULL
);
CREATE INDEX profile_versions_by_position ON profile_versions (position);

CREATE TABLE filters (
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    filter_id {int} NOT NULL,
    content_hash {bytes} NOT NULL, -- SHA-256
    content {bytes} NOT NULL, -- JSON
    PRIMARY KEY (user_nid, filter_id),
    UNIQUE (user_nid, content_hash)
) {without_rowid};

CREATE TABLE receipts (
    room_nid {int} NOT NULL REFERENCES rooms(room_nid),
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    type {text} NOT NULL, -- m.read or m.read.private
    thread_id {text} NOT NULL, -- '': the receipt is for no thread in particular
    event_id {text} NOT NULL, -- perhaps not known here
    room_order {int}, -- of the event; null: not known
    ts_ms {int} NOT NULL,
    is_local {bool} NOT NULL,
    position {int} NOT NULL,
    PRIMARY KEY (room_nid, user_nid, type, thread_id)
) {without_rowid};
CREATE INDEX receipts_by_position ON receipts (room_nid, position);
CREATE INDEX receipts_to_send ON receipts (position) WHERE is_local = 1 AND type = 'm.read';

CREATE TABLE typing (
    room_nid {int} NOT NULL REFERENCES rooms(room_nid),
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    until_ms {int} NOT NULL,
    PRIMARY KEY (room_nid, user_nid)
) {without_rowid};
CREATE INDEX typing_by_deadline ON typing (until_ms);

-- When the set of those who type last changed: one row a room.
CREATE TABLE typing_versions (
    room_nid {int} PRIMARY KEY REFERENCES rooms(room_nid),
    position {int} NOT NULL
);

CREATE TABLE presence (
    user_nid {int} PRIMARY KEY REFERENCES users(user_nid),
    state {text} NOT NULL, -- online, unavailable or offline
    status_msg {bytes}, -- a JSON string
    currently_active {bool} NOT NULL,
    last_active_ms {int} NOT NULL,
    is_local {bool} NOT NULL,
    position {int} NOT NULL
);
CREATE INDEX presence_by_position ON presence (position);
CREATE INDEX presence_not_offline ON presence (last_active_ms) WHERE state <> 'offline';
