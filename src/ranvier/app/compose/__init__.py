"""Wiring: the only place where services are made. A module for each area; `app.build` joins them."""
