"""`/event` and `/backfill` as they were documented at the end of 2015: docs/federation-2014.md, "The end of 2015"."""
