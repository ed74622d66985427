"""What to say when object storage refuses, or does not answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from normalisr_dask.storage.locations import is_local

#: Packages that speak with object storage. Their errors are recognised by their names, since none of them need be here.
CLIENTS = {"aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google"}
WAYS_OUT = {
    "NoCredentialsError": "there are no credentials for it; give them in the environment (AWS_ACCESS_KEY_ID, "
    "AWS_SECRET_ACCESS_KEY) or in ~/.aws, on the workers, too",
    "PartialCredentialsError": "the credentials for it are not complete; see the environment (AWS_…) and ~/.aws",
    "ProfileNotFound": "there is no such profile in ~/.aws; see AWS_PROFILE",
    "EndpointConnectionError": "the storage cannot be reached; see the network, and AWS_ENDPOINT_URL where it is set",
    "ConnectTimeoutError": "the storage does not answer; see the network, and AWS_ENDPOINT_URL where it is set",
    "ReadTimeoutError": "the storage has stopped answering; run the same command again",
}


class UnreachableError(OSError):
    """Object storage refused, or did not answer."""


@contextmanager
def url_errors(location: str | Path) -> Iterator[None]:
    """Say of which URL it is, in a line, that storage refuses or does not answer; messages hold no credentials.

    Parameters
    ----------
    location
        What the block reads or writes; of a path on this machine, all errors go through as they are.

    Raises
    ------
    UnreachableError
        If the block raised an error of the storage or the network.
    """
    try:
        yield
    except UnreachableError:
        raise
    except Exception as error:
        reason = None if is_local(location) else _reason(error)
        if reason is None:
            raise
        msg = f"{location}: {reason}"
        raise UnreachableError(msg) from error


def _reason(error: Exception) -> str | None:
    """Return what an error of the storage means and a way out; None if it is another error."""
    if isinstance(error, PermissionError):
        return (
            f"access is denied ({error.strerror or error}); see which credentials the environment and ~/.aws give, "
            "and what they may do"
        )
    if type(error).__module__.partition(".")[0] not in CLIENTS:
        return None
    kind = type(error).__name__
    return WAYS_OUT.get(kind, f"the storage gave an error ({kind}: {error})")
