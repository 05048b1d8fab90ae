"""The experimental sync v3 of July 2021: docs/adr/0008-sync-v3-2021.md, docs/sync-v3-2021.md."""
