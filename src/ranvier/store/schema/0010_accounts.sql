-- Accounts of this server, and what proves who somebody is. The words in braces are explained in store/dialect.py.
-- Secrets that this server made itself are long and random: their SHA-256 is stored, never they themselves.

CREATE TABLE accounts (
    user_nid {int} PRIMARY KEY REFERENCES users(user_nid),
    kind {text} NOT NULL, -- guest, user, admin or appservice
    password_hash {text}, -- null: no login by password
    appservice_id {text}, -- who registered the account
    created_ms {int} NOT NULL,
    deactivated_ms {int}, -- null: not deactivated
    is_erased {bool} NOT NULL DEFAULT 0,
    is_locked {bool} NOT NULL DEFAULT 0,
    is_suspended {bool} NOT NULL DEFAULT 0,
    user_type {text} -- what administrators file the account under; null: nothing
);
CREATE INDEX accounts_by_appservice ON accounts (appservice_id) WHERE appservice_id IS NOT NULL;

CREATE TABLE external_ids (
    provider {text} NOT NULL,
    external_id {text} NOT NULL, -- who the provider says it is
    user_nid {int} NOT NULL REFERENCES accounts(user_nid),
    PRIMARY KEY (provider, external_id)
) {without_rowid};
CREATE INDEX external_ids_by_user ON external_ids (user_nid);

CREATE TABLE ratelimit_overrides (
    user_nid {int} PRIMARY KEY REFERENCES users(user_nid),
    messages_per_second {real} NOT NULL, -- 0: no limit
    burst_count {int} NOT NULL
);

-- Requests that wait for user-interactive authentication.
CREATE TABLE uia_sessions (
    session_id {text} PRIMARY KEY,
    user_nid {int}, -- null: nobody is logged in
    request {text} NOT NULL, -- method and path: a session is good for nothing else
    used_ms {int} NOT NULL -- when it was made or last used
);
CREATE INDEX uia_sessions_by_use ON uia_sessions (used_ms);

CREATE TABLE uia_stages (
    session_id {text} NOT NULL REFERENCES uia_sessions(session_id) ON DELETE CASCADE,
    stage {text} NOT NULL, -- m.login.…
    result {bytes} NOT NULL, -- what the stage proved, JSON
    PRIMARY KEY (session_id, stage)
) {without_rowid};

CREATE TABLE registration_tokens (
    token {text} PRIMARY KEY, -- administrators read these: not hashed
    uses_allowed {int}, -- null: any number
    pending {int} NOT NULL DEFAULT 0, -- registrations that have shown it and are not complete
    completed {int} NOT NULL DEFAULT 0,
    expires_ms {int}
);

CREATE TABLE openid_tokens (
    token_hash {bytes} PRIMARY KEY,
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    expires_ms {int} NOT NULL
);
CREATE INDEX openid_tokens_by_expiry ON openid_tokens (expires_ms);
CREATE INDEX openid_tokens_by_user ON openid_tokens (user_nid);

CREATE TABLE login_tokens (
    token_hash {bytes} PRIMARY KEY,
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    expires_ms {int} NOT NULL
);
CREATE INDEX login_tokens_by_expiry ON login_tokens (expires_ms);
CREATE INDEX login_tokens_by_user ON login_tokens (user_nid);

CREATE TABLE threepids (
    medium {text} NOT NULL, -- email or msisdn
    address {text} NOT NULL, -- in canonical form
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    validated_ms {int} NOT NULL,
    added_ms {int} NOT NULL,
    PRIMARY KEY (medium, address)
) {without_rowid};
CREATE INDEX threepids_by_user ON threepids (user_nid);

-- Identity servers at which a user bound an address through this server: where to unbind it.
CREATE TABLE threepid_bindings (
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    medium {text} NOT NULL,
    address {text} NOT NULL,
    id_server {text} NOT NULL,
    PRIMARY KEY (user_nid, medium, address, id_server)
) {without_rowid};

-- Proofs of owning an address: a token was sent there.
CREATE TABLE threepid_validations (
    sid {text} PRIMARY KEY,
    client_secret {text} NOT NULL,
    medium {text} NOT NULL,
    address {text} NOT NULL,
    purpose {text} NOT NULL, -- what the mail said that the address is proved for
    token_hash {bytes} NOT NULL,
    send_attempt {int} NOT NULL,
    next_link {text},
    tries {int} NOT NULL DEFAULT 0, -- wrong tokens so far
    validated_ms {int},
    expires_ms {int} NOT NULL,
    UNIQUE (client_secret, medium, address)
);
CREATE INDEX threepid_validations_by_expiry ON threepid_validations (expires_ms);
