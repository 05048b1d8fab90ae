-- Users as people look for them.

-- How far those have come that follow all changes and keep something derived from them.
CREATE TABLE followers (
    name {text} PRIMARY KEY,
    position {int} NOT NULL
);

-- What is shown of a user who is found: of a local user the profile, of another one what a member event says.
CREATE TABLE user_directory (
    user_nid {int} PRIMARY KEY REFERENCES users(user_nid),
    display_name {text},
    avatar_url {text}
);

-- The words of names and ids, in the form in which they are compared.
CREATE TABLE user_words (
    word {text} NOT NULL,
    user_nid {int} NOT NULL REFERENCES users(user_nid),
    PRIMARY KEY (word, user_nid)
) {without_rowid};
CREATE INDEX user_words_by_user ON user_words (user_nid, word);
