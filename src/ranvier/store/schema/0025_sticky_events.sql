-- Events that are delivered whatever else happened in their room, until they expire (MSC4354).

CREATE TABLE sticky_events (
    event_nid {int} PRIMARY KEY,
    room_nid {int} NOT NULL REFERENCES rooms(room_nid),
    sender_nid {int} NOT NULL REFERENCES users(user_nid),
    position {int} NOT NULL, -- when it came in
    expires_ms {int} NOT NULL
);
CREATE INDEX sticky_events_by_room ON sticky_events (room_nid, position);
CREATE INDEX sticky_events_by_time ON sticky_events (expires_ms);
