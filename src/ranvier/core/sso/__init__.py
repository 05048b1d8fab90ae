"""Rules of signing in through another identity provider: what an ID token must say, names from claims, where to go."""
