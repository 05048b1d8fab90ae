-- Signing in through other identity providers, and by QR code. The words in braces are explained in store/dialect.py.

-- Visits of browsers that have not ended: on their way to a provider, choosing a name, confirming where to go.
CREATE TABLE sso_visits (
    ticket_hash {bytes} PRIMARY KEY, -- of what the browser brings back
    cookie_hash {bytes} NOT NULL, -- of what proves that it is the same browser
    content {bytes} NOT NULL, -- JSON
    expires_ms {int} NOT NULL
);
CREATE INDEX sso_visits_by_expiry ON sso_visits (expires_ms);

-- Where two devices of a person meet (MSC4108, MSC4388): a text that each may replace. It is encrypted by them.
CREATE TABLE rendezvous_sessions (
    session_id {text} PRIMARY KEY,
    content {bytes} NOT NULL,
    revision {int} NOT NULL, -- one more with each write
    modified_ms {int} NOT NULL,
    expires_ms {int} NOT NULL
);
CREATE INDEX rendezvous_sessions_by_expiry ON rendezvous_sessions (expires_ms);
