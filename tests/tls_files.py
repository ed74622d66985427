"""Authorities and certificates as files."""

from pathlib import Path
from typing import NamedTuple

import trustme


class TlsFiles(NamedTuple):
    """Authority, certificate and key, each the path of a PEM file."""

    authority: str
    certificate: str
    key: str

    def settings(self) -> dict[str, str]:
        """Return them as fields of ``ClusterSettings``."""
        return {"tls_ca": self.authority, "tls_cert": self.certificate, "tls_key": self.key}

    def options(self) -> list[str]:
        """Return them as options of ``normalisr-dask``."""
        return ["--tls-ca", self.authority, "--tls-cert", self.certificate, "--tls-key", self.key]

    def dask_options(self) -> list[str]:
        """Return them as options of ``dask scheduler`` and ``dask worker``."""
        return ["--tls-ca-file", self.authority, "--tls-cert", self.certificate, "--tls-key", self.key]


def tls_files(folder: Path) -> TlsFiles:
    """Make an authority and a certificate of it."""
    paths = [folder / name for name in ("authority.pem", "certificate.pem", "key.pem")]
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    pems = (authority.cert_pem, certificate.cert_chain_pems[0], certificate.private_key_pem)
    for pem, path in zip(pems, paths, strict=True):
        pem.write_to_path(path)
    return TlsFiles(*map(str, paths))
