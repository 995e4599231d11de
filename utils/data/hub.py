"""Loading from a folder or from the hub, with one clear line where neither works."""

import errno
import os
import pickle
import socket
import urllib.parse
from pathlib import Path

from utils.errors import InputError


def from_pretrained(auto_class, source: str, **kwargs):
    """`auto_class.from_pretrained` with one clear line where `source` is neither a folder nor reachable, or damaged.

    Code that comes with a checkpoint is run with trust_remote_code=True alone.
    """
    if not Path(source).is_dir():
        if source.startswith((".", "/", "~")) or source.count("/") > 1:
            raise InputError(
                f"{source}: no such folder, and not the form of a hub name (name or owner/name){_OFFLINE_HINT}"
            )
        _require_hub(source, kwargs.get("cache_dir"), kwargs.get("revision"))
    return _one_line(auto_class.from_pretrained, source, auto_class, source, **kwargs)


def load_config(source: str, settings):
    """The config of a checkpoint. settings: the `ModelSettings` that say from where, which revision, and whether its code runs."""
    from transformers import AutoConfig

    return from_pretrained(
        AutoConfig,
        source,
        cache_dir=settings.cache_dir,
        revision=settings.model_revision,
        trust_remote_code=settings.trust_remote_code,
    )


def from_config(auto_class, config, source: str, **kwargs):
    """A model with random weights, with one clear line where `config`, read from `source`, describes none."""
    return _one_line(auto_class.from_config, source, auto_class, config, **kwargs)


def find_file(source: str, name: str, *, cache_dir=None, revision: str = "main") -> Path | None:
    """The file `name` of a folder or of a hub repository that was loaded before; None where there is none."""
    from huggingface_hub import try_to_load_from_cache

    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.exists() else None
    cached = try_to_load_from_cache(source, name, cache_dir=cache_dir, revision=revision)
    return Path(cached) if isinstance(cached, str) else None


_OFFLINE_HINT = ". `make demo` shows the whole thing without a network"


def _one_line(load, source: str, auto_class, *args, **kwargs):
    """What `load` returns. A damaged or odd checkpoint makes the libraries raise nearly any type; all become InputError."""
    try:
        return load(*args, **{"trust_remote_code": False, **kwargs})
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{source}: its pytorch_model.bin is damaged, or holds more than tensors; such a file can run code when it is "
            "read, so it was not read"
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        first_line = next(iter(str(error).strip().splitlines()), "")
        why = f"{type(error).__name__} {first_line}"[:300].strip(" .")
        raise InputError(f"{source}: cannot be loaded as {auto_class.__name__}: {why}{_OFFLINE_HINT}") from error


def _require_hub(name: str, cache_dir=None, revision: str | None = None) -> None:
    """Fail at once where the hub cannot be reached: the library itself retries for most of a minute."""
    from huggingface_hub import constants, try_to_load_from_cache, utils

    try:
        utils.validate_repo_id(name)
    except ValueError:
        raise InputError(f"{name!r}: no such folder, and not the form of a hub name (name or owner/name)") from None
    cached = try_to_load_from_cache(name, "config.json", cache_dir=cache_dir, revision=revision)
    if cached or any(k.lower().endswith("_proxy") for k in os.environ):
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
