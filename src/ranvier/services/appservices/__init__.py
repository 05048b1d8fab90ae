"""Application services: bridges and bots that act for many users. See docs/adr/0006-application-services.md."""
