-- This server as an OAuth 2.0 authorization server. Secrets are random and long: their SHA-256 is stored.

CREATE TABLE oauth_clients (
    client_id {text} PRIMARY KEY, -- the hash of its metadata
    metadata {bytes} NOT NULL, -- JSON
    created_ms {int} NOT NULL,
    used_ms {int} NOT NULL -- when it was last registered or shown to a person
);
CREATE INDEX oauth_clients_by_use ON oauth_clients (used_ms);

-- Devices that are OAuth sessions. Their tokens stand where all tokens do.
CREATE TABLE oauth_grants (
    device_nid {int} PRIMARY KEY REFERENCES devices(device_nid) ON DELETE CASCADE,
    client_id {text} NOT NULL REFERENCES oauth_clients(client_id),
    scope {text} NOT NULL,
    family_hash {bytes} NOT NULL UNIQUE, -- of what all refresh tokens of the session begin with
    created_ms {int} NOT NULL
);
CREATE INDEX oauth_grants_by_client ON oauth_grants (client_id);

CREATE TABLE oauth_codes (
    code_hash {bytes} PRIMARY KEY,
    client_id {text} NOT NULL REFERENCES oauth_clients(client_id) ON DELETE CASCADE,
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    redirect_uri {text} NOT NULL,
    scope {text} NOT NULL,
    code_challenge {text} NOT NULL,
    expires_ms {int} NOT NULL,
    is_used {bool} NOT NULL DEFAULT 0,
    device_nid {int} REFERENCES devices(device_nid) ON DELETE CASCADE -- what it was exchanged for
);
CREATE INDEX oauth_codes_by_expiry ON oauth_codes (expires_ms);
CREATE INDEX oauth_codes_by_user ON oauth_codes (user_nid);
CREATE INDEX oauth_codes_by_client ON oauth_codes (client_id);
CREATE INDEX oauth_codes_by_device ON oauth_codes (device_nid) WHERE device_nid IS NOT NULL;

CREATE TABLE oauth_device_codes (
    device_code_hash {bytes} PRIMARY KEY,
    user_code_hash {bytes} NOT NULL UNIQUE,
    client_id {text} NOT NULL REFERENCES oauth_clients(client_id) ON DELETE CASCADE,
    scope {text} NOT NULL,
    expires_ms {int} NOT NULL,
    interval_s {int} NOT NULL, -- grows when the client polls too often
    polled_ms {int},
    state {text} NOT NULL, -- pending, allowed or denied
    user_nid {int} REFERENCES users(user_nid) -- who allowed it
);
CREATE INDEX oauth_device_codes_by_expiry ON oauth_device_codes (expires_ms);
CREATE INDEX oauth_device_codes_by_user ON oauth_device_codes (user_nid) WHERE user_nid IS NOT NULL;
CREATE INDEX oauth_device_codes_by_client ON oauth_device_codes (client_id);

-- Browsers in which somebody is signed in on this server's own pages.
CREATE TABLE browser_sessions (
    session_hash {bytes} PRIMARY KEY, -- of the cookie
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    proved_ms {int} NOT NULL, -- when the person last proved who they are
    expires_ms {int} NOT NULL
);
CREATE INDEX browser_sessions_by_user ON browser_sessions (user_nid, proved_ms);
CREATE INDEX browser_sessions_by_expiry ON browser_sessions (expires_ms);
