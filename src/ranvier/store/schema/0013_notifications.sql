-- Push rules, pushers and unread counts. tables/notifications.py explains the design of the counts.

CREATE TABLE push_rules (
    user_nid {int} PRIMARY KEY REFERENCES users(user_nid),
    changes {bytes} NOT NULL, -- how the user's rules differ from the default ones, JSON
    position {int} NOT NULL
);

CREATE TABLE pushers (
    pusher_nid {int} PRIMARY KEY, -- a position: never used again
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    device_nid {int} REFERENCES devices(device_nid) ON DELETE CASCADE, -- whose token made it
    kind {text} NOT NULL, -- http or email
    app_id {text} NOT NULL,
    pushkey {text} NOT NULL,
    app_display_name {text} NOT NULL,
    device_display_name {text} NOT NULL,
    profile_tag {text} NOT NULL,
    lang {text} NOT NULL,
    data {bytes} NOT NULL, -- JSON
    is_enabled {bool} NOT NULL,
    created_ms {int} NOT NULL,
    pushed_nid {int} NOT NULL, -- events up to this one are dealt with
    failing_since_ms {int}, -- null: the last delivery went well
    retry_ms {int} NOT NULL DEFAULT 0, -- do not try before
    due_ms {int}, -- when to tell what is new, where that waits; null: nothing does
    told_ms {int}, -- when the user was told last; null: never
    gap_ms {int} NOT NULL DEFAULT 0, -- for how long not to tell again, as long as nothing is read
    UNIQUE (app_id, pushkey, user_nid)
);
CREATE INDEX pushers_by_user ON pushers (user_nid);
CREATE INDEX pushers_by_device ON pushers (device_nid);

-- Events that notify whoever has the default rules, one row for all of them.
CREATE TABLE notifying_events (
    room_nid {int} NOT NULL REFERENCES rooms(room_nid),
    event_nid {int} NOT NULL,
    thread_nid {int} NOT NULL, -- the root's event_nid; 0: the main timeline
    main_ordinal {int} NOT NULL, -- notifying events of the main timeline up to and including this one
    actions {text} NOT NULL, -- JSON
    PRIMARY KEY (room_nid, event_nid)
) {without_rowid};
CREATE INDEX notifying_events_in_threads ON notifying_events (room_nid, event_nid, thread_nid)
    WHERE thread_nid <> 0;

-- In which rooms a user counts notifying events, and from which one on: since joining.
CREATE TABLE counted_rooms (
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    room_nid {int} NOT NULL REFERENCES rooms(room_nid),
    after_nid {int} NOT NULL, -- events after this one
    PRIMARY KEY (user_nid, room_nid)
) {without_rowid};

-- Where an event means something else to one user than to all.
CREATE TABLE user_notifications (
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    room_nid {int} NOT NULL REFERENCES rooms(room_nid),
    event_nid {int} NOT NULL,
    thread_nid {int} NOT NULL,
    correction {int} NOT NULL, -- added to the count: -1, 0 or 1
    is_highlight {bool} NOT NULL,
    actions {text} NOT NULL, -- JSON; '[]': does not notify
    PRIMARY KEY (user_nid, room_nid, event_nid)
) {without_rowid};
CREATE INDEX user_notifications_by_event ON user_notifications (room_nid, event_nid);

-- Up to where a user has read, from receipts and the user's own events.
CREATE TABLE read_marks (
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    room_nid {int} NOT NULL REFERENCES rooms(room_nid),
    thread_nid {int} NOT NULL, -- -1: everything; 0: the main timeline; else the thread of that root
    read_nid {int} NOT NULL, -- events up to this one are read
    PRIMARY KEY (user_nid, room_nid, thread_nid)
) {without_rowid};
