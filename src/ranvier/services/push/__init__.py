"""Whom an event notifies, and how: push rules, unread counts, push gateways."""
