"""Where a server is, and the key that it wants. Imports nothing heavy."""

import os
from urllib.parse import urlsplit

from rollout.errors import ConfigError


def checked_address(address: str, *, key: str, mend: str) -> str:
    """`address` without a slash at its end. `key` is its name in the configuration, `mend` what to set for a password.

    Errors: `ValueError` for what is no address of a server.
    """
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # as for a port that is no number
        is_address = False
    if not is_address or parts.query or parts.fragment:
        raise ValueError(f"{key} is {address!r}, expected an address such as http://host:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{key} has a user or password in it; set {mend} to a variable with a key")
    return address.rstrip("/")


def key_of_environment(variable: str | None, *, key: str, whose: str) -> str | None:
    """The key under `variable`, out of the environment of this process; None where none is asked for.

    Errors: `ConfigError` where it is not there.
    """
    if variable is None:
        return None
    found = os.environ.get(variable, "").strip()
    if not found:
        raise ConfigError(
            f"{key} is {variable}, and the environment has nothing under that name; set it to the key of {whose}"
        )
    return found
