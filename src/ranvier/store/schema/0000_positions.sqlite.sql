-- The newest position given out. Written once per commit, by whoever holds the write lock.
CREATE TABLE newest_position (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    position INTEGER NOT NULL
);
INSERT INTO newest_position (id, position) VALUES (1, 0);
