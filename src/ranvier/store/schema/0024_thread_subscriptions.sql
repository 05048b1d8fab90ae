-- Threads that users follow, or have left (MSC4306).

CREATE TABLE thread_subscriptions (
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    room_nid {int} NOT NULL REFERENCES rooms(room_nid),
    root_nid {int} NOT NULL, -- the event_nid of the thread's root
    is_subscribed {bool} NOT NULL,
    is_automatic {bool} NOT NULL,
    unsubscribed_position {int} NOT NULL, -- 0: never unsubscribed; else what came before it subscribes to nothing
    position {int} NOT NULL, -- when it last changed
    PRIMARY KEY (user_nid, room_nid, root_nid)
) {without_rowid};
CREATE INDEX thread_subscriptions_by_position ON thread_subscriptions (user_nid, position);
CREATE INDEX thread_subscriptions_by_room ON thread_subscriptions (room_nid);
