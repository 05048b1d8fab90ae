"""Endpoints: parse, call one service function, encode. Never touches the database."""
