-- What administrators set going: deleting rooms, purging history, redacting what a user sent.

CREATE TABLE admin_tasks (
    task_nid {int} PRIMARY KEY, -- a position
    task_id {text} NOT NULL UNIQUE,
    action {text} NOT NULL,
    resource_id {text} NOT NULL, -- the room or the user that it is about
    status {text} NOT NULL, -- scheduled, active, complete or failed
    requested_by {text} NOT NULL, -- the administrator
    wish {bytes} NOT NULL, -- JSON: what was asked for
    result {bytes} NOT NULL, -- JSON: how far it has come, or what came of it
    error {text},
    changed_ms {int} NOT NULL -- when it last came on
);
CREATE INDEX admin_tasks_by_resource ON admin_tasks (resource_id, action);
CREATE INDEX admin_tasks_by_time ON admin_tasks (changed_ms);

-- Who may replace their cross-signing keys without proving who they are, once and until when.
CREATE TABLE cross_signing_resets (
    user_nid {int} PRIMARY KEY REFERENCES users(user_nid),
    until_ms {int} NOT NULL
);
