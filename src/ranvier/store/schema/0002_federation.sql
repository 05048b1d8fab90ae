-- What is kept about other servers, and what waits to be sent to them.

-- Answers to transactions of other servers, so that a repeated one gets the same answer.
CREATE TABLE received_transactions (
    server_nid {int} NOT NULL REFERENCES servers(server_nid),
    txn_id {text} NOT NULL,
    response {bytes} NOT NULL,
    received_ms {int} NOT NULL,
    PRIMARY KEY (server_nid, txn_id)
) {without_rowid};
CREATE INDEX received_transactions_by_time ON received_transactions (received_ms);

CREATE TABLE destinations (
    server_nid {int} PRIMARY KEY REFERENCES servers(server_nid),
    -- Every event up to this position that concerns the server was delivered.
    sent_position {int} NOT NULL DEFAULT 0,
    failing_since_ms {int}, -- null: the last request succeeded
    retry_at_ms {int} NOT NULL DEFAULT 0, -- no request before this time
    retry_interval_ms {int} NOT NULL DEFAULT 0,
    last_success_ms {int}
);
CREATE INDEX destinations_retry ON destinations (retry_at_ms) WHERE failing_since_ms IS NOT NULL;

-- Which process sends to a server; used where several processes share the database.
CREATE TABLE destination_leases (
    server_nid {int} PRIMARY KEY REFERENCES servers(server_nid),
    owner {text} NOT NULL,
    until_ms {int} NOT NULL
);
CREATE INDEX destination_leases_by_owner ON destination_leases (owner);

-- EDUs that must not be lost: the content once, and a row for each server that it has not reached.
CREATE TABLE outbox_edus (
    position {int} PRIMARY KEY,
    edu_type {text} NOT NULL,
    content {bytes} NOT NULL
);
CREATE TABLE outbox (
    server_nid {int} NOT NULL REFERENCES servers(server_nid),
    position {int} NOT NULL REFERENCES outbox_edus(position),
    coalesce_key {text}, -- a later EDU for the same server with the same key replaces this one; null: each counts
    PRIMARY KEY (server_nid, position)
) {without_rowid};
CREATE INDEX outbox_by_edu ON outbox (position);
CREATE UNIQUE INDEX outbox_coalesced ON outbox (server_nid, coalesce_key) WHERE coalesce_key IS NOT NULL;

-- Signing keys of other servers.
CREATE TABLE server_keys (
    server_nid {int} NOT NULL REFERENCES servers(server_nid),
    key_id {text} NOT NULL,
    verify_key {bytes} NOT NULL,
    valid_until_ms {int} NOT NULL, -- for an old key: when it expired
    is_old {int} NOT NULL, -- 1: from old_verify_keys, good only for what was signed up to valid_until_ms
    PRIMARY KEY (server_nid, key_id)
) {without_rowid};

-- The newest key document of each server as it was signed, to answer others as a notary.
CREATE TABLE server_key_documents (
    server_nid {int} PRIMARY KEY REFERENCES servers(server_nid),
    valid_until_ms {int} NOT NULL,
    received_ms {int} NOT NULL,
    json {bytes} NOT NULL
);
