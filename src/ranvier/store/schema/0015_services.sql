-- Application services, background work and what administrators are told.

CREATE TABLE appservices (
    appservice_id {text} PRIMARY KEY,
    position {int} NOT NULL, -- everything up to it is delivered, in the pending transaction, or of no concern
    next_txn_id {int} NOT NULL DEFAULT 1,
    lease {text}, -- which process delivers just now; null: nobody
    lease_until_ms {int} NOT NULL DEFAULT 0,
    failing_since_ms {int}, -- null: the last delivery went well
    retry_ms {int} NOT NULL DEFAULT 0 -- not before
);

-- The one transaction of a service that is not acknowledged: sent again with the same id and bytes until it is.
CREATE TABLE appservice_transactions (
    appservice_id {text} PRIMARY KEY REFERENCES appservices(appservice_id) ON DELETE CASCADE,
    txn_id {text} NOT NULL,
    body {bytes} NOT NULL, -- JSON
    has_messages {bool} NOT NULL, -- to devices, which are deleted once they are taken
    created_ms {int} NOT NULL
);

CREATE TABLE jobs (
    job_nid {int} PRIMARY KEY, -- a position: older jobs first
    kind {text} NOT NULL,
    dedupe_key {text} NOT NULL, -- one job of a kind for each key
    payload {bytes} NOT NULL, -- JSON
    run_ms {int} NOT NULL, -- not before; while leased, when the lease ends
    lease {text}, -- who works on it; null: nobody
    attempts {int} NOT NULL DEFAULT 0,
    last_error {text},
    UNIQUE (kind, dedupe_key)
);
CREATE INDEX jobs_by_time ON jobs (kind, run_ms);
CREATE INDEX jobs_by_lease ON jobs (lease) WHERE lease IS NOT NULL;

CREATE TABLE reports (
    report_nid {int} PRIMARY KEY, -- a position
    reporter_nid {int} NOT NULL REFERENCES users(user_nid),
    subject {text} NOT NULL, -- event, room or user
    room_id {text},
    event_id {text},
    user_id {text},
    reason {bytes} NOT NULL, -- a JSON string
    score {int},
    received_ms {int} NOT NULL,
    resolved_ms {int}
);
CREATE INDEX reports_open ON reports (report_nid) WHERE resolved_ms IS NULL;

-- The room in which the server talks to a user.
CREATE TABLE notice_rooms (
    user_nid {int} PRIMARY KEY REFERENCES users(user_nid),
    room_nid {int} NOT NULL REFERENCES rooms(room_nid)
);
