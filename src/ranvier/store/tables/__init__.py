"""One module for each group of tables: their SQL and plain functions over a transaction. Nobody else writes
SQL."""
