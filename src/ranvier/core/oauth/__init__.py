"""The rules of OAuth 2.0 as Matrix uses it. Spec: client-server API, "OAuth 2.0 API"."""
