"""A stage that several processes share without talking to each other: which rows each one does, and where it leaves them.

Shard (i, k) is the i-th of k. Its folder `shard_<i>_of_<k>` has a lock of its own. The same command without --shard puts
the parts together; by then all of them must be finished.
"""

import re
from pathlib import Path

from utils.errors import InputError


def shard_rows(n: int, block_rows: int, shard: tuple[int, int] | None) -> slice:
    """The rows of a shard (None: all n): whole blocks, so that every row is computed in the same block as without shards."""
    i, k = shard or (1, 1)
    blocks = -(-n // block_rows)
    return slice(min(n, blocks * (i - 1) // k * block_rows), min(n, blocks * i // k * block_rows))


def shard_folder(output_dir, shard: tuple[int, int] | None) -> Path:
    """Where a shard writes; without one, the output folder itself."""
    return Path(output_dir, *(["shard_{}_of_{}".format(*shard)] if shard else []))


def shard_folders(output_dir) -> dict[tuple[int, int], Path]:
    """The folders of all shards, first to last; {} where there are none. A shard without rows leaves no folder. Raises
    InputError where there are shards of two divisions."""
    found = [re.fullmatch(r"shard_\d+_of_(\d+)", path.name) for path in Path(output_dir).glob("shard_*_of_*")]
    of = {int(match[1]) for match in found if match}
    if len(of) > 1:
        raise InputError(
            f"{output_dir} holds shards of {' and of '.join(map(str, sorted(of)))}; remove those not wanted"
        )
    return {(i, k): shard_folder(output_dir, (i, k)) for k in of for i in range(1, k + 1)}


def unfinished(output_dir, shard: tuple[int, int]) -> InputError:
    return InputError(
        "{}: shard {}/{} is not finished; repeat its command with --shard {}/{}, or remove the shards' folders to "
        "do without".format(output_dir, *shard, *shard)
    )
