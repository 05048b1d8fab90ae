"""Whose certificates outgoing connections trust."""

import ssl
from pathlib import Path


def client_context(extra_ca_file: Path | None = None) -> ssl.SSLContext:
    """The operating system's certificate authorities, and those of a PEM file if given. TLS 1.2 or later.

    Raises: OSError when the file cannot be read, ssl.SSLError when it holds no certificate.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if extra_ca_file is not None:
        context.load_verify_locations(cafile=extra_ca_file)
    return context
