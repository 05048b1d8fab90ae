"""The administration API, in the shape of Synapse's, which tools speak. docs/admin-api.md."""
