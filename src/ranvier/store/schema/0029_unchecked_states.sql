-- Rooms of which a state was taken without events that could not be checked, since the keys of their servers could not be
-- had: docs/adr/0003-federation.md. What came since is in partial_events.
CREATE TABLE unchecked_states (
    room_nid {int} PRIMARY KEY REFERENCES rooms(room_nid),
    entered_nid {int} NOT NULL, -- the event by which this server entered on that state; 0: it was in the room
    extremities {text} NOT NULL, -- of the room before; a JSON array of event_nids
    state_root {int} NOT NULL, -- of the room before
    claims {bytes} NOT NULL, -- what was asked of whom; a JSON array
    wanted {bytes} NOT NULL, -- the keys; a JSON array
    since_ms {int} NOT NULL
);

-- Events of the past that were fetched meanwhile, on such a state.
CREATE TABLE unchecked_history (
    room_nid {int} NOT NULL,
    event_id {text} NOT NULL,
    PRIMARY KEY (room_nid, event_id)
) {without_rowid};
