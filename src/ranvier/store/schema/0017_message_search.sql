-- Which events hold which words: for searches. Rooms that are encrypted have none that matter.
CREATE TABLE message_words (
    room_nid {int} NOT NULL,
    word {text} NOT NULL,
    event_nid {int} NOT NULL,
    PRIMARY KEY (room_nid, word, event_nid)
) {without_rowid};
