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

    def issue_expired(self, alternative_names: str) -> tuple[Path, Path]:
        """(certificate, key) that were good for a day, long ago."""
        stem = self._directory / f"expired_{alternative_names.replace(':', '_').replace(',', '_')}"
        key, request, certificate = (stem.with_suffix(end) for end in (".key", ".csr", ".pem"))
        _openssl(
            *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", "/CN=Test server", "-addext", f"subjectAltName={alternative_names}"),
            *("-keyout", str(key), "-out", str(request)),
        )
        (self._directory / "index.txt").touch()
        settings = self._directory / "expired.cnf"
        settings.write_text(
            f"[ca]\ndefault_ca = one\n[one]\ndatabase = {self._directory}/index.txt\npolicy = any\n"
            f"new_certs_dir = {self._directory}\ndefault_md = sha256\ncopy_extensions = copy\nrand_serial = yes\n"
            "[any]\ncommonName = supplied\n"
        )
        _openssl(
            *(
                "ca",
                "-batch",
                "-notext",
                "-config",
                str(settings),
                "-in",
                str(request),
                "-out",
                str(certificate),
            ),
            *("-cert", str(self.ca_file), "-keyfile", str(self._ca_key)),
            *("-startdate", "20200101000000Z", "-enddate", "20200102000000Z"),
        )
        return certificate, key


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
