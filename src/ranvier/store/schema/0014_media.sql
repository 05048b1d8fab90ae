-- Media. Bytes are kept elsewhere (io.blobs) under their SHA-256, once for each distinct content.

CREATE TABLE blobs (
    blob_hash {bytes} PRIMARY KEY,
    size_bytes {int} NOT NULL,
    reference_count {int} NOT NULL, -- rows of media and thumbnails that name it; -1: its file is being deleted
    touched_ms {int} NOT NULL, -- when it was last stored, let go or given up
    is_quarantined {bool} NOT NULL DEFAULT 0 -- so is whatever comes in with this content
);
CREATE INDEX blobs_unreferenced ON blobs (reference_count, touched_ms) WHERE reference_count <= 0;

CREATE TABLE media (
    server_nid {int} NOT NULL REFERENCES servers(server_nid),
    media_id {text} NOT NULL,
    blob_hash {bytes} REFERENCES blobs(blob_hash), -- null: reserved, nothing uploaded yet
    size_bytes {int} NOT NULL DEFAULT 0,
    content_type {text},
    file_name {text},
    uploader_nid {int}, -- null: a copy of what is elsewhere, on another server or on a page of the web
    created_ms {int} NOT NULL,
    accessed_ms {int} NOT NULL, -- coalesced
    expires_ms {int}, -- of a reservation
    quarantined_by {text}, -- null: not quarantined
    is_protected {bool} NOT NULL DEFAULT 0, -- an administrator forbids quarantine
    is_open {bool} NOT NULL DEFAULT 0, -- 1: it came in while downloads needed no token, and still needs none
    PRIMARY KEY (server_nid, media_id)
) {without_rowid};
CREATE INDEX media_by_blob ON media (blob_hash);
CREATE INDEX media_by_uploader ON media (uploader_nid, created_ms) WHERE uploader_nid IS NOT NULL;
CREATE INDEX media_reserved ON media (expires_ms) WHERE expires_ms IS NOT NULL;
CREATE INDEX media_cached ON media (accessed_ms, size_bytes) WHERE uploader_nid IS NULL;

CREATE TABLE thumbnails (
    server_nid {int} NOT NULL,
    media_id {text} NOT NULL,
    width {int} NOT NULL, -- these two: as the size was asked for, rounded up
    height {int} NOT NULL,
    method {text} NOT NULL, -- crop or scale
    is_animated {bool} NOT NULL,
    content_type {text} NOT NULL,
    size_bytes {int} NOT NULL,
    blob_hash {bytes} NOT NULL REFERENCES blobs(blob_hash),
    PRIMARY KEY (server_nid, media_id, width, height, method, is_animated),
    FOREIGN KEY (server_nid, media_id) REFERENCES media(server_nid, media_id)
) {without_rowid};
CREATE INDEX thumbnails_by_blob ON thumbnails (blob_hash);

-- What each user's uploads come to, for quotas.
CREATE TABLE media_usage (
    user_nid {int} PRIMARY KEY REFERENCES users(user_nid),
    media_count {int} NOT NULL,
    size_bytes {int} NOT NULL
);

CREATE TABLE url_previews (
    url_hash {bytes} PRIMARY KEY, -- SHA-256 of the URL
    url {text} NOT NULL,
    preview {bytes} NOT NULL, -- JSON
    fetched_ms {int} NOT NULL,
    expires_ms {int} NOT NULL
);
CREATE INDEX url_previews_by_expiry ON url_previews (expires_ms);
