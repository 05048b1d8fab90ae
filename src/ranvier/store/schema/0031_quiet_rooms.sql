-- Rooms whose events do not count for a user unless one means something to that very user: a rule of the user says so.
-- tables/notifications.py explains the design of the counts.
CREATE TABLE quiet_rooms (
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    room_id {text} NOT NULL, -- empty: all rooms
    PRIMARY KEY (user_nid, room_id)
) {without_rowid};
