"""How to encrypt what goes between client, scheduler and workers: by TLS files, or as Dask is configured."""

import ssl

import dask
from distributed import Security
from distributed.utils import import_term


def check_tls_files(authority: str, certificate: str, key: str | None) -> None:
    """Read TLS files once, before Dask does.

    Parameters
    ----------
    authority, certificate
        PEM files.
    key
        PEM file; None if the certificate's file holds it.

    Raises
    ------
    ValueError
        If a file does not hold what it should.
    """
    try:
        context = ssl.create_default_context(cafile=authority)
    except OSError as error:  # SSLError is one, too
        msg = f"--tls-ca: {authority} cannot be read as the certificate of an authority; expected a PEM file"
        raise ValueError(msg) from error
    try:
        context.load_cert_chain(certificate, key, password="")  # without one, OpenSSL would ask at the terminal
    except OSError as error:
        files = f"--tls-cert: {certificate}" if key is None else f"--tls-cert, --tls-key: {certificate} and {key}"
        msg = (
            f"{files} cannot be read as a certificate and its private key; expected PEM, the key without a passphrase, "
            "and in the certificate's file unless --tls-key names another"
        )
        raise ValueError(msg) from error


def security_of_files(authority: str, certificate: str, key: str | None) -> Security:
    """Use one certificate for every role.

    Parameters
    ----------
    authority, certificate, key
        As for :func:`check_tls_files`.

    Returns
    -------
    Security
    """
    roles = ("client", "scheduler", "worker")
    certificates = {f"tls_{role}_cert": certificate for role in roles}
    keys = {f"tls_{role}_key": key for role in roles if key is not None}
    return Security(tls_ca_file=authority, require_encryption=True, **certificates, **keys)


def configured_security(address: str) -> Security:
    """Take what Dask's own configuration says, as its client does.

    Parameters
    ----------
    address
        Of the scheduler.

    Returns
    -------
    Security

    Raises
    ------
    ValueError
        If the scheduler is encrypted, and the configuration does not say how.
    """
    loader = dask.config.get("distributed.client.security-loader", None)
    security = (import_term(loader)({"address": address}) if loader else None) or Security()
    if address.startswith("tls://") and not loader and not (security.tls_ca_file and security.tls_client_cert):
        msg = (
            f"the scheduler at {address} is encrypted: give --tls-ca and --tls-cert (and --tls-key, if apart), "
            "or configure Dask with such files"
        )
        raise ValueError(msg)
    return security
