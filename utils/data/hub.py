"""Loading from a folder or from the hub, with one clear line where neither works."""

import os
import socket
import urllib.parse
from pathlib import Path

from utils.errors import InputError


def from_pretrained(auto_class, source: str, **kwargs):
    """`auto_class.from_pretrained` with one clear line where `source` is neither a folder nor reachable."""
    if not Path(source).is_dir():
        if source.startswith((".", "/", "~")) or source.count("/") > 1:
            raise InputError(
                f"{source}: no such folder, and not the form of a hub name (name or owner/name){_OFFLINE_HINT}"
            )
        _require_hub(source)
    try:
        return auto_class.from_pretrained(source, **kwargs)
    except (OSError, ValueError, KeyError) as error:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{source}: cannot be loaded as {auto_class.__name__}: {first_line}{_OFFLINE_HINT}") from error


_OFFLINE_HINT = ". `make demo` shows the whole thing without a network"


def _require_hub(name: str) -> None:
    """Fail at once where the hub cannot be reached: the library itself retries for most of a minute."""
    from huggingface_hub import constants, try_to_load_from_cache

    if try_to_load_from_cache(name, "config.json") or any(k.lower().endswith("_proxy") for k in os.environ):
        return
    if not constants.HF_HUB_OFFLINE:
        address = urllib.parse.urlsplit(constants.ENDPOINT)
        try:
            socket.create_connection((address.hostname, address.port or 443), timeout=10).close()
            return
        except OSError:
            pass
    raise InputError(
        f"{name}: neither a folder here nor reachable on the hub (no connection, not in the cache){_OFFLINE_HINT}"
    )
