"""The database: SQL by table group, one text for SQLite and PostgreSQL."""
