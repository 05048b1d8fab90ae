"""A certificate authority for one test run, made with the openssl program."""

import subprocess
from pathlib import Path


class Authority:
    """Issues server certificates that only its own `ca_file` makes trusted."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.ca_file = directory / "ca.pem"
        self._ca_key = directory / "ca.key"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *("-subj", "/CN=Test CA", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-keyout", str(self._ca_key), "-out", str(self.ca_file)),
        )

    def issue(self, alternative_names: str) -> tuple[Path, Path]:
        """(certificate, key) for names such as `DNS:a.example,IP:127.0.0.1`."""
        stem = self._directory / alternative_names.replace(":", "_").replace(",", "_")
        key, certificate = stem.with_suffix(".key"), stem.with_suffix(".pem")
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *("-subj", "/CN=Test server", "-addext", f"subjectAltName={alternative_names}"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-CA", str(self.ca_file), "-CAkey", str(self._ca_key)),
            *("-keyout", str(key), "-out", str(certificate)),
        )
        return certificate, key


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
