-- Events that users want sent later (MSC4140).

CREATE TABLE delayed_events (
    delay_nid {int} PRIMARY KEY, -- a position: of two for the same moment the older one first
    delay_id {text} NOT NULL UNIQUE,
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    device_id {text} NOT NULL, -- '': the token belongs to no device
    txn_id {text}, -- null: scheduled by a request without one
    room_id {text} NOT NULL, -- perhaps not known here
    type {text} NOT NULL,
    state_key {text}, -- null: no state event
    content {bytes} NOT NULL, -- JSON
    origin_server_ts {int}, -- only of application services; null: when it is sent
    sticky_ms {int}, -- null: not sticky (MSC4354)
    delay_ms {int} NOT NULL,
    scheduled_ms {int} NOT NULL, -- when it was scheduled or last restarted
    run_ms {int}, -- when it is due; while it is being sent, when somebody else may try; null: finalised
    is_claimed {bool} NOT NULL DEFAULT 0, -- it is being sent
    finalised_ms {int},
    event_id {text}, -- null: not sent
    error {bytes}, -- JSON: why it could not be sent; null: it was sent or canceled
    UNIQUE (user_nid, device_id, room_id, type, txn_id)
);
CREATE INDEX delayed_events_by_time ON delayed_events (run_ms) WHERE run_ms IS NOT NULL;
CREATE INDEX delayed_events_by_user ON delayed_events (user_nid, finalised_ms);
