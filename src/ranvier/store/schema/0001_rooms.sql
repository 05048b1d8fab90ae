-- Rooms and events. The words in braces are explained in store/dialect.py.
-- Times are milliseconds since the epoch (…_ms); positions come from the one sequence of the database.

-- Numbers for names. Rows are immutable and never deleted.

CREATE TABLE servers (
    server_nid {number},
    server_name {text} NOT NULL UNIQUE
);

CREATE TABLE users (
    user_nid {number},
    user_id {text} NOT NULL UNIQUE,
    server_nid {int} NOT NULL REFERENCES servers(server_nid),
    is_local {int} NOT NULL -- 1: a user of this server, whether or not there is an account
);

CREATE TABLE state_keys (
    state_key_nid {number},
    -- Most slots are (m.room.member, user), so the more selective part comes first.
    state_key {text} NOT NULL,
    type {text} NOT NULL,
    UNIQUE (state_key, type)
);

CREATE TABLE rooms (
    room_nid {number},
    room_id {text} NOT NULL UNIQUE,
    version {text} NOT NULL,
    -- Counts the appends that changed the head (extremities or state): what compare-and-append compares.
    revision {int} NOT NULL DEFAULT 0,
    -- The forward extremities: event_nids, ascending, as a JSON array. One or two in nearly every room, always
    -- read and written whole with the head: a table would cost three more statements for each event.
    extremities {text} NOT NULL DEFAULT '[]',
    -- Room state now: a root of state_nodes, 0 is empty.
    state_root {int} NOT NULL DEFAULT 0,
    -- 1: joined by federation, and the state of the join has not come whole yet.
    is_partial {int} NOT NULL DEFAULT 0,
    -- Position of the newest live event of the timeline, and of the newest that this server made.
    newest_position {int} NOT NULL DEFAULT 0,
    newest_local_position {int} NOT NULL DEFAULT 0,
    -- Position of the newest event that people would call activity; 0: none yet.
    bump_position {int} NOT NULL DEFAULT 0,
    joined_count {int} NOT NULL DEFAULT 0,
    invited_count {int} NOT NULL DEFAULT 0
);

-- Rooms that were entered with a state that lacked most of its members: docs/adr/0003-federation.md.
CREATE TABLE partial_rooms (
    room_nid {int} PRIMARY KEY REFERENCES rooms(room_nid),
    join_nid {int} NOT NULL, -- the event by which this server entered
    -- Those that were in the room then, as it was told: a JSON array of server_nids. While the state is not whole,
    -- each has one place more in room_servers than is known of its users. Later: those that were there besides.
    servers {text} NOT NULL,
    whole_position {int} NOT NULL -- where the state became whole; 0: it is not yet
);
CREATE INDEX partial_rooms_by_position ON partial_rooms (whole_position);

-- Events in such a room that are to be decided again: what is known of the state before them is not whole.
CREATE TABLE partial_events (
    room_nid {int} NOT NULL,
    event_nid {int} NOT NULL,
    PRIMARY KEY (room_nid, event_nid)
) {without_rowid};
CREATE INDEX partial_events_by_event ON partial_events (event_nid);

-- What lists of rooms show and filter by; derived from the state by the owner of rooms, one row per room.
CREATE TABLE room_summaries (
    room_nid {int} PRIMARY KEY REFERENCES rooms(room_nid),
    name {text},
    topic {text},
    avatar_url {text},
    canonical_alias {text},
    room_type {text}, -- m.room.create content.type, e.g. m.space
    join_rule {text},
    history_visibility {text},
    guest_can_join {int} NOT NULL DEFAULT 0,
    encryption {text}, -- the algorithm, null: not encrypted
    predecessor_room_id {text},
    successor_room_id {text}
);

-- Rooms that an administrator closed; the room need not be known here.
CREATE TABLE blocked_rooms (
    room_id {text} PRIMARY KEY,
    blocked_by {text} NOT NULL,
    blocked_ms {int} NOT NULL
) {without_rowid};

CREATE TABLE published_rooms (
    room_nid {int} NOT NULL REFERENCES rooms(room_nid),
    network {text} NOT NULL, -- '' is this server's own list, else an application service's network id
    PRIMARY KEY (room_nid, network)
) {without_rowid};

CREATE TABLE aliases (
    alias {text} PRIMARY KEY,
    room_nid {int} NOT NULL REFERENCES rooms(room_nid),
    creator_user_nid {int} NOT NULL,
    created_ms {int} NOT NULL
) {without_rowid};
CREATE INDEX aliases_by_room ON aliases (room_nid);

-- Events. One row each, about 150 bytes besides the JSON, indexes included.
CREATE TABLE events (
    -- The position at which the event was stored.
    event_nid {int} PRIMARY KEY,
    event_id {text} NOT NULL UNIQUE,
    room_nid {int} NOT NULL REFERENCES rooms(room_nid),
    -- Place in the timeline: position << 20 for a live event, any other number for one found by backfill.
    -- Null: not in the timeline (outlier, rejected, soft-failed).
    room_order {int},
    status {int} NOT NULL, -- 0 accepted, 1 soft-failed, 2 rejected, 3 outlier, 4 rejected outlier
    type {text} NOT NULL,
    sender_nid {int} NOT NULL REFERENCES users(user_nid),
    state_key_nid {int} REFERENCES state_keys(state_key_nid), -- null: not a state event
    state_root {int}, -- the room's state before the event; null for outliers
    auth_depth {int}, -- state events: 1 + the greatest auth_depth of its auth events; a create event has 0
    depth {int} NOT NULL,
    origin_server_ts {int} NOT NULL,
    is_local {int} NOT NULL, -- 1: made by this server, or let in by it: it is to be sent to others
    contains_url {int} NOT NULL, -- 1: content.url is a string (filters ask for it)
    redacted_by {int}, -- the redaction event that took effect
    json {bytes} NOT NULL -- canonical form, as signed
);
CREATE UNIQUE INDEX events_timeline ON events (room_nid, room_order) WHERE room_order IS NOT NULL;
-- The times are what senders claim: a timeline is not in their order.
CREATE INDEX events_by_time ON events (room_nid, origin_server_ts, room_order) WHERE room_order IS NOT NULL;

-- An outlier that arrived live later keeps its number; this tells those who follow positions when it came.
CREATE TABLE late_events (
    position {int} PRIMARY KEY,
    event_nid {int} NOT NULL
);
CREATE INDEX late_events_by_event ON late_events (event_nid);

-- Which redaction names which event, whether or not it may take effect.
CREATE TABLE redactions (
    target_event_id {text} NOT NULL, -- perhaps not arrived yet
    redaction_nid {int} NOT NULL,
    PRIMARY KEY (target_event_id, redaction_nid)
) {without_rowid};
CREATE INDEX redactions_by_redaction ON redactions (redaction_nid);

CREATE TABLE redacted_originals (
    event_nid {int} PRIMARY KEY, -- events.json still holds what was redacted
    redacted_ms {int} NOT NULL
);

-- Events cited in prev_events that are not here (or only as outliers). Behind each is a gap of the timeline.
CREATE TABLE gaps (
    missing_event_id {text} NOT NULL,
    event_nid {int} NOT NULL, -- who cites it
    room_nid {int} NOT NULL,
    room_order {int} NOT NULL, -- of the citing event
    claimed_root {int}, -- of the state after the missing event, as another server claimed it
    PRIMARY KEY (missing_event_id, event_nid)
) {without_rowid};
CREATE INDEX gaps_by_room ON gaps (room_nid, room_order);

-- The auth graph among state events; those of other events stand in their JSON and are never walked from.
CREATE TABLE auth_edges (
    event_nid {int} NOT NULL,
    auth_nid {int} NOT NULL,
    PRIMARY KEY (event_nid, auth_nid)
) {without_rowid};
CREATE INDEX auth_edges_reverse ON auth_edges (auth_nid, event_nid);

-- Edges that wait: state events came before what they cite, as invites to rooms elsewhere do.
CREATE TABLE auth_gaps (
    missing_event_id {text} NOT NULL,
    event_nid {int} NOT NULL, -- who cites it
    PRIMARY KEY (missing_event_id, event_nid)
) {without_rowid};
CREATE INDEX auth_gaps_by_event ON auth_gaps (event_nid);

-- Annotations, edits, threads, references. One row for each event that relates to another.
CREATE TABLE relations (
    room_nid {int} NOT NULL,
    target_event_id {text} NOT NULL, -- perhaps not arrived yet
    rel_type {text} NOT NULL,
    event_nid {int} NOT NULL REFERENCES events(event_nid),
    type {text} NOT NULL,
    sender_nid {int} NOT NULL,
    aggregation_key {text}, -- of an annotation
    PRIMARY KEY (target_event_id, rel_type, event_nid)
) {without_rowid};
CREATE UNIQUE INDEX relations_by_event ON relations (event_nid);

CREATE TABLE threads (
    room_nid {int} NOT NULL,
    root_event_id {text} NOT NULL,
    reply_count {int} NOT NULL,
    newest_nid {int} NOT NULL, -- the newest reply, and its room_order
    newest_order {int} NOT NULL,
    PRIMARY KEY (room_nid, root_event_id)
) {without_rowid};
CREATE INDEX threads_by_activity ON threads (room_nid, newest_order);

-- Room state. Nodes of core.state_map, once per distinct content.
CREATE TABLE state_nodes (
    node_nid {number},
    hash {bytes} NOT NULL UNIQUE,
    data {bytes} NOT NULL
);

-- Which root was the room's state from which position on: state at any position, and what changed between two.
CREATE TABLE room_states (
    room_nid {int} NOT NULL,
    position {int} NOT NULL,
    state_root {int} NOT NULL,
    PRIMARY KEY (room_nid, position)
) {without_rowid};

-- The entries of rooms.state_root, for joins.
CREATE TABLE current_state (
    room_nid {int} NOT NULL,
    state_key_nid {int} NOT NULL,
    event_nid {int} NOT NULL,
    PRIMARY KEY (room_nid, state_key_nid)
) {without_rowid};

-- Who is what in which room, by the current state, or for a local user by an invite, knock or rejection in a room
-- that this server is not in.
CREATE TABLE memberships (
    room_nid {int} NOT NULL REFERENCES rooms(room_nid),
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    membership {text} NOT NULL, -- join, invite, knock, leave, ban
    event_nid {int} NOT NULL,
    position {int} NOT NULL, -- when it became so here
    is_local {int} NOT NULL, -- of the user
    is_forgotten {int} NOT NULL DEFAULT 0,
    PRIMARY KEY (room_nid, user_nid)
) {without_rowid};
CREATE INDEX memberships_by_user ON memberships (user_nid, membership);
CREATE INDEX memberships_by_room ON memberships (room_nid, membership, event_nid);
CREATE INDEX memberships_local ON memberships (room_nid, membership) WHERE is_local = 1;

-- Every change of a local user's membership: in which rooms, since when.
CREATE TABLE membership_changes (
    user_nid {int} NOT NULL,
    position {int} NOT NULL,
    room_nid {int} NOT NULL,
    event_nid {int} NOT NULL,
    membership {text} NOT NULL,
    previous {text} NOT NULL, -- the membership before, 'leave' if there was none
    PRIMARY KEY (user_nid, position, room_nid)
) {without_rowid};
CREATE INDEX membership_changes_by_position ON membership_changes (position);
-- Who came into a room: its servers have to hear of the user's devices.
CREATE INDEX membership_changes_joins ON membership_changes (position)
    WHERE membership = 'join' AND previous <> 'join';

-- What an invited or knocking user may see of a room that this server is not in: a JSON array of stripped events.
CREATE TABLE stripped_states (
    event_nid {int} PRIMARY KEY REFERENCES events(event_nid),
    json {bytes} NOT NULL
);

CREATE TABLE room_servers (
    room_nid {int} NOT NULL REFERENCES rooms(room_nid),
    server_nid {int} NOT NULL REFERENCES servers(server_nid),
    joined_count {int} NOT NULL, -- its users that are joined; never 0
    PRIMARY KEY (room_nid, server_nid)
) {without_rowid};
CREATE INDEX room_servers_by_server ON room_servers (server_nid);

-- Idempotency of what clients send: the request's scope is the device and the endpoint with its path.
CREATE TABLE client_transactions (
    user_nid {int} NOT NULL,
    device_id {text} NOT NULL, -- '' if the token has none
    room_nid {int} NOT NULL,
    request {text} NOT NULL, -- what of the path stands between room and transaction id
    txn_id {text} NOT NULL,
    event_nid {int} NOT NULL,
    created_ms {int} NOT NULL,
    PRIMARY KEY (user_nid, device_id, room_nid, request, txn_id)
) {without_rowid};
CREATE INDEX client_transactions_by_event ON client_transactions (event_nid);
