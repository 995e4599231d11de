"""Processes: one by default, several under `torchrun` or `accelerate launch`. Devices, gradient sums, gathering.

torch.distributed directly: the loop needs one sum per step and one gather per evaluation, and both launchers set the
same environment variables.
"""

import contextlib
import datetime
import os
from dataclasses import dataclass

import numpy as np
import torch

# Before a group exists: the functions of this module keep the group of the moment of their import as a default value.
# transformers imports it with the model, and then `stop` would leave the group's threads alive. At the end of Python
# such a thread now and then aborts the process, after all files are written.
import torch.distributed.nn

from utils.errors import InputError, quoted


@dataclass(frozen=True)
class Processes:
    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        return self.rank == 0

    def sum_gradients(self, parameters) -> None:
        """Add up the gradients of all processes in place, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        torch.distributed.all_reduce(flat)
        for parameter, part in zip(parameters, flat.split([g.numel() for g in gradients]), strict=True):
            parameter.grad = part.view_as(parameter)

    def sum(self, value: float) -> float:
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64 if self.device.type == "cpu" else torch.float32)
        total = total.to(self.device)
        torch.distributed.all_reduce(total)
        return float(total)

    def any(self, flag: bool) -> bool:
        return self.sum(float(flag)) > 0

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        """Every process's array, in rank order, on every process. First dimensions may differ."""
        if self.size == 1:
            return [array]
        parts = [None] * self.size
        torch.distributed.all_gather_object(parts, array)
        return parts

    def barrier(self) -> None:
        if self.size > 1:
            torch.distributed.barrier()

    @contextlib.contextmanager
    def main_first(self):
        """The main process runs the block, then the others: it fills a cache that they read."""
        if not self.main:
            self.barrier()
        yield
        if self.main:
            self.barrier()


def start(*, use_cpu: bool = False) -> Processes:
    """Join the process group that the launcher describes, or stand alone. One GPU per process.

    Raises InputError where the launcher's environment variables describe no group.
    """
    size = _from_environment("WORLD_SIZE", 1, least=1)
    rank, local_rank = _from_environment("RANK", 0), _from_environment("LOCAL_RANK", 0)
    if rank >= size:
        raise InputError(f"RANK={rank} with WORLD_SIZE={size}: ranks go from 0 to {size - 1}; {_LAUNCH}")
    cuda = torch.cuda.is_available() and not use_cpu
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        if local_rank >= torch.cuda.device_count():
            raise InputError(
                f"LOCAL_RANK={local_rank}, but this machine has {torch.cuda.device_count()} GPUs; start one process per GPU"
            )
        torch.cuda.set_device(device)
    if size > 1 and not torch.distributed.is_initialized():
        try:
            torch.distributed.init_process_group("nccl" if cuda else "gloo", timeout=datetime.timedelta(hours=2))
        except ValueError as error:
            raise InputError(
                f"WORLD_SIZE={size}, but there is no group of processes to join ({error}); {_LAUNCH}"
            ) from None
    return Processes(rank, size, device)


_LAUNCH = "start several processes with torchrun or accelerate launch, which set such variables; otherwise unset them"


def _from_environment(name: str, default: int, *, least: int = 0) -> int:
    text = os.environ.get(name, str(default))
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise InputError(f"the environment variable {name} is {quoted(text)}, not a number from {least} up; {_LAUNCH}")
    return int(text)


def stop() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
