-- The federation of 2014: contexts, their PDUs, and what is exchanged about them. docs/federation-2014.md.

-- One row for each context that anything is known of.
CREATE TABLE historical_contexts (
    context {text} PRIMARY KEY,
    room_nid {int} UNIQUE, -- the room that shows it to users of this server; null: none of them is in it
    min_depth {int}, -- of the PDUs held in line; null: there are none yet
    converted_position {int} NOT NULL DEFAULT 0 -- events of our users up to here are PDUs
) {without_rowid};

CREATE TABLE historical_pdus (
    pdu_nid {number}, -- in the order of arrival
    origin {text} NOT NULL,
    pdu_id {text} NOT NULL,
    context {text} NOT NULL,
    depth {int} NOT NULL,
    state_type {text}, -- pdu_type of a PDU of state; null: it is none
    is_outlier {int} NOT NULL, -- 1: its place in the context's history is not known
    json {bytes} NOT NULL, -- canonical form, as it is served
    UNIQUE (origin, pdu_id)
);
CREATE INDEX historical_pdus_by_context ON historical_pdus (context, pdu_nid);

-- prev_pdus, each pair with its origin found out.
CREATE TABLE historical_edges (
    pdu_nid {int} NOT NULL REFERENCES historical_pdus(pdu_nid),
    prev_origin {text} NOT NULL,
    prev_pdu_id {text} NOT NULL,
    PRIMARY KEY (pdu_nid, prev_origin, prev_pdu_id)
) {without_rowid};
CREATE INDEX historical_edges_reverse ON historical_edges (prev_origin, prev_pdu_id);

-- Forward extremities: PDUs held in line that no other one cites.
CREATE TABLE historical_forward (
    context {text} NOT NULL,
    pdu_nid {int} NOT NULL,
    PRIMARY KEY (context, pdu_nid)
) {without_rowid};

-- Backward extremities: PDUs that are cited and not held in line.
CREATE TABLE historical_backward (
    context {text} NOT NULL,
    origin {text} NOT NULL,
    pdu_id {text} NOT NULL,
    PRIMARY KEY (context, origin, pdu_id)
) {without_rowid};

CREATE TABLE historical_state (
    context {text} NOT NULL,
    pdu_type {text} NOT NULL,
    state_key {text} NOT NULL,
    pdu_nid {int} NOT NULL,
    PRIMARY KEY (context, pdu_type, state_key)
) {without_rowid};

-- Transactions of peers and what was answered.
CREATE TABLE historical_received (
    received_nid {number},
    origin {text} NOT NULL,
    txn_id {text} NOT NULL,
    response {bytes} NOT NULL,
    received_ms {int} NOT NULL,
    UNIQUE (origin, txn_id)
);
CREATE INDEX historical_received_by_time ON historical_received (received_ms);

-- Transactions to peers.
CREATE TABLE historical_sent (
    sent_nid {number},
    destination {text} NOT NULL,
    txn_id {text} NOT NULL,
    body {bytes}, -- null: the peer has it
    sender {text} NOT NULL, -- the process that sends it
    until_ms {int} NOT NULL, -- and until when no other one does
    UNIQUE (destination, txn_id)
);
CREATE INDEX historical_sent_waiting ON historical_sent (destination, sent_nid) WHERE body IS NOT NULL;

-- PDUs that were sent to peers, or are to be.
CREATE TABLE historical_outgoing (
    outgoing_nid {number},
    destination {text} NOT NULL,
    pdu_nid {int} NOT NULL,
    sent_nid {int}, -- the transaction it is in; null: it waits
    refusal {text}, -- what the peer has against it; empty: nothing; null: it has not said
    UNIQUE (destination, pdu_nid)
);
CREATE INDEX historical_outgoing_waiting ON historical_outgoing (destination, outgoing_nid)
    WHERE sent_nid IS NULL;
CREATE INDEX historical_outgoing_by_sent ON historical_outgoing (destination, sent_nid)
    WHERE sent_nid IS NOT NULL;
