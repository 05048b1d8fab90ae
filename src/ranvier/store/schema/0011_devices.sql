-- Devices of local users and all that belongs to them. A table that has a device_nid either dies with the device
-- (ON DELETE CASCADE) or is emptied bit by bit afterwards (tables/devices.py lists those).

CREATE TABLE devices (
    device_nid {int} PRIMARY KEY, -- a position: never used again
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    device_id {text} NOT NULL,
    display_name {text},
    created_ms {int} NOT NULL,
    last_seen_ms {int},
    last_seen_ip {text},
    last_seen_agent {text},
    keys {bytes}, -- device keys as uploaded, JSON; null: none yet
    UNIQUE (user_nid, device_id)
);

-- Devices that are gone, whose to-device messages are not yet.
CREATE TABLE deleted_devices (
    device_nid {int} PRIMARY KEY
);

-- An access token and the refresh token that came with it.
CREATE TABLE tokens (
    token_nid {int} PRIMARY KEY, -- a position: never used again
    access_hash {bytes} NOT NULL UNIQUE,
    refresh_hash {bytes} UNIQUE,
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    device_nid {int} REFERENCES devices(device_nid) ON DELETE CASCADE, -- null: an administrator acts as the user
    issued_by_nid {int}, -- that administrator
    replaces_nid {int}, -- the token_nid that was refreshed, until one of the new pair is used
    created_ms {int} NOT NULL,
    expires_ms {int}, -- of the access token
    refresh_expires_ms {int}
);
CREATE INDEX tokens_by_user ON tokens (user_nid);
CREATE INDEX tokens_by_issuer ON tokens (issued_by_nid) WHERE issued_by_nid IS NOT NULL;
CREATE INDEX tokens_by_device ON tokens (device_nid);
CREATE INDEX tokens_by_replaced ON tokens (replaces_nid) WHERE replaces_nid IS NOT NULL;

-- The newest change of a user's devices or cross-signing keys, for local and remote users: one row a user.
CREATE TABLE device_list_versions (
    user_nid {int} PRIMARY KEY REFERENCES users(user_nid),
    position {int} NOT NULL
);
CREATE INDEX device_list_versions_by_position ON device_list_versions (position);

-- Changes of local users' devices, for other servers: those not told yet, and the newest one of each user.
CREATE TABLE device_list_changes (
    position {int} PRIMARY KEY,
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    device_id {text} -- null: the cross-signing keys
);
CREATE INDEX device_list_changes_by_user ON device_list_changes (user_nid, position);

-- Remote users whose devices are kept here: some of those with whom a room is shared.
CREATE TABLE remote_device_lists (
    user_nid {int} PRIMARY KEY REFERENCES users(user_nid),
    stream_id {int}, -- of the newest update that was applied; null: never synchronized
    heard {int} NOT NULL, -- position since which the list is to be asked for
    needs_resync {bool} NOT NULL,
    failures {int} NOT NULL DEFAULT 0, -- requests for the list that failed in a row
    retry_ms {int} NOT NULL DEFAULT 0 -- do not ask again before
);
CREATE INDEX remote_device_lists_stale ON remote_device_lists (retry_ms) WHERE needs_resync = 1;

CREATE TABLE remote_devices (
    user_nid {int} NOT NULL REFERENCES remote_device_lists(user_nid) ON DELETE CASCADE,
    device_id {text} NOT NULL,
    display_name {text},
    keys {bytes}, -- JSON as it came
    PRIMARY KEY (user_nid, device_id)
) {without_rowid};

CREATE TABLE one_time_keys (
    device_nid {int} NOT NULL REFERENCES devices(device_nid) ON DELETE CASCADE,
    algorithm {text} NOT NULL,
    position {int} NOT NULL, -- of the upload; within one upload the order is that of key_id
    key_id {text} NOT NULL,
    json {bytes} NOT NULL,
    PRIMARY KEY (device_nid, algorithm, key_id)
) {without_rowid};
CREATE INDEX one_time_keys_by_age ON one_time_keys (device_nid, algorithm, position, key_id);

CREATE TABLE fallback_keys (
    device_nid {int} NOT NULL REFERENCES devices(device_nid) ON DELETE CASCADE,
    algorithm {text} NOT NULL,
    key_id {text} NOT NULL,
    json {bytes} NOT NULL,
    is_used {bool} NOT NULL,
    PRIMARY KEY (device_nid, algorithm)
) {without_rowid};

CREATE TABLE cross_signing_keys (
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    usage {text} NOT NULL, -- master, self_signing or user_signing
    public_key {text} NOT NULL, -- unpadded base64: also the id that signatures name
    json {bytes} NOT NULL,
    PRIMARY KEY (user_nid, usage)
) {without_rowid};

-- Signatures that were uploaded apart from what they sign.
CREATE TABLE key_signatures (
    target_user_nid {int} NOT NULL REFERENCES users(user_nid),
    target_id {text} NOT NULL, -- a device id, or the public key of a cross-signing key
    signer_user_nid {int} NOT NULL REFERENCES users(user_nid),
    key_id {text} NOT NULL, -- e.g. ed25519:…
    signature {text} NOT NULL,
    position {int} NOT NULL, -- of the upload
    PRIMARY KEY (target_user_nid, target_id, signer_user_nid, key_id)
) {without_rowid};
-- Whom a user signed lately: nobody else is told of it.
CREATE INDEX key_signatures_of_others ON key_signatures (signer_user_nid, position)
    WHERE signer_user_nid <> target_user_nid;

-- MSC3814: one for each user. The device itself is a row of devices.
CREATE TABLE dehydrated_devices (
    user_nid {int} PRIMARY KEY REFERENCES users(user_nid),
    device_nid {int} NOT NULL UNIQUE REFERENCES devices(device_nid) ON DELETE CASCADE,
    device_data {bytes} NOT NULL -- JSON
);

-- Messages for one device, in order, until it has acknowledged them.
CREATE TABLE to_device_messages (
    device_nid {int} NOT NULL, -- of devices or deleted_devices
    position {int} NOT NULL,
    sender {text} NOT NULL,
    type {text} NOT NULL,
    content {bytes} NOT NULL, -- JSON
    PRIMARY KEY (device_nid, position)
) {without_rowid};

CREATE TABLE to_device_transactions (
    device_nid {int} NOT NULL REFERENCES devices(device_nid) ON DELETE CASCADE, -- the sender
    type {text} NOT NULL,
    txn_id {text} NOT NULL,
    sent_ms {int} NOT NULL,
    PRIMARY KEY (device_nid, type, txn_id)
) {without_rowid};
CREATE INDEX to_device_transactions_by_age ON to_device_transactions (sent_ms);

CREATE TABLE to_device_received (
    sender {text} NOT NULL, -- a remote user
    message_id {text} NOT NULL,
    received_ms {int} NOT NULL,
    PRIMARY KEY (sender, message_id)
) {without_rowid};
CREATE INDEX to_device_received_by_age ON to_device_received (received_ms);

CREATE TABLE key_backup_versions (
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    version {int} NOT NULL,
    algorithm {text} NOT NULL,
    auth_data {bytes} NOT NULL, -- JSON
    etag {int} NOT NULL DEFAULT 0, -- grows with each change of the keys
    key_count {int} NOT NULL DEFAULT 0,
    is_deleted {bool} NOT NULL DEFAULT 0, -- kept, so that its number is never given out again
    PRIMARY KEY (user_nid, version)
) {without_rowid};

CREATE TABLE key_backup_sessions (
    user_nid {int} NOT NULL,
    version {int} NOT NULL,
    room_id {text} NOT NULL, -- need not be a room that is known here
    session_id {text} NOT NULL,
    first_message_index {int} NOT NULL,
    forwarded_count {int} NOT NULL,
    is_verified {bool} NOT NULL,
    session_data {bytes} NOT NULL, -- JSON
    PRIMARY KEY (user_nid, version, room_id, session_id),
    FOREIGN KEY (user_nid, version) REFERENCES key_backup_versions(user_nid, version) ON DELETE CASCADE
) {without_rowid};
