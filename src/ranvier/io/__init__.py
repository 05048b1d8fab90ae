"""The world outside the process: time, randomness, DNS, HTTP, blobs, TLS and mail, behind small ports."""
