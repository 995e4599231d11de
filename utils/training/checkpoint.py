"""Checkpoints of a running training: whole or absent, checked by hash, the last good one found again. Plain arrays in
safetensors and JSON; nothing is pickled. The random state needs no file: dropout and batches are functions of
(seed, step).
"""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from utils.errors import InputError, RunFailed
from utils.files import file_sha256, mismatch

logger = logging.getLogger(__name__)

_STATE = "state.json"


class Checkpoints:
    """`folder/step_00000123/`: weights, optimizer moments, `state.json` with everything else and the files' hashes."""

    def __init__(self, folder, *, keep: int = 2):
        self.folder = Path(folder)
        self.keep = keep

    def save(self, step: int, *, model, optimizer, extra: dict, arrays: dict, best: int | None = None) -> Path:
        """Write the state after `step` steps beside its place, then rename it there; drop the oldest ones.

        `extra` is JSON; `arrays` are further tensors by name; best: the step whose checkpoint is kept whatever its age. On
        failure (a full disk) the earlier checkpoints stay.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(".step_*"):
            shutil.rmtree(leftover, ignore_errors=True)
        place = self._place(step)
        temporary = self.folder / f".{place.name}"
        temporary.mkdir()
        try:
            tensors = {
                "model": {name: tensor.detach().contiguous() for name, tensor in _model_tensors(model).items()},
                "optimizer": _optimizer_tensors(model, optimizer),
                "arrays": arrays,
            }
            hashes = {}
            for name, content in tensors.items():
                path = temporary / f"{name}.safetensors"
                save_file(content, path)
                hashes[path.name] = file_sha256(path)
            state = {"step": step, "sha256": hashes, **extra}
            with open(temporary / _STATE, "w", encoding="utf-8") as file:
                json.dump({**state, "own_sha256": _json_sha256(state)}, file)
                file.flush()
                os.fsync(file.fileno())
            shutil.rmtree(place, ignore_errors=True)
            os.rename(temporary, place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        # Checkpoints of later steps are damaged, since this run did not continue from them: they are removed.
        kept = [found for found in self._found() if found <= place][-self.keep :]
        for other in set(self._found()) - {*kept, self._place(best or step)}:
            shutil.rmtree(other, ignore_errors=True)
        return place

    def restore(self, *, model, optimizer) -> tuple[int, dict, dict] | None:
        """Load the newest whole checkpoint into `model` and `optimizer`: (steps done, extra, arrays), or None.

        A damaged one is reported and the one before it taken. Raises InputError where it is a checkpoint of another model.
        """
        for place in reversed(self._found()):
            problem = self._damage(place)
            if problem:
                logger.warning("checkpoint %s is damaged (%s); trying the one before it", place, problem)
                continue
            extra = json.loads((place / _STATE).read_text(encoding="utf-8"))
            self._load_weights(place, model)
            _load_optimizer(model, optimizer, load_file(place / "optimizer.safetensors"))
            logger.info("continuing from %s", place)
            return extra.pop("step"), extra, load_file(place / "arrays.safetensors")
        return None

    def load_weights(self, step: int, model) -> None:
        """Load the weights after `step` steps into `model`. Raises RunFailed where that checkpoint is lost or damaged."""
        place = self._place(step)
        if problem := self._damage(place):
            raise RunFailed(
                f"{place}: the checkpoint of the best step is damaged ({problem}); train again with --overwrite_output_dir"
            )
        self._load_weights(place, model)

    @staticmethod
    def _load_weights(place: Path, model) -> None:
        stored, own = load_file(place / "model.safetensors"), _model_tensors(model)
        if {name: t.shape for name, t in stored.items()} != {name: t.shape for name, t in own.items()}:
            raise InputError(
                f"{place}: the checkpoint is of another model than this run's: its config was changed since then. Restore "
                "it, or start afresh with --overwrite_output_dir"
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(stored[name])

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _place(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}"

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob("step_*"))

    @staticmethod
    def _damage(place: Path) -> str | None:
        try:
            state = json.loads((place / _STATE).read_text(encoding="utf-8"))
            if state.pop("own_sha256") != _json_sha256(state):
                return f"{_STATE} does not match its checksum"
            return mismatch(place, state["sha256"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return str(error)


def _json_sha256(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _model_tensors(model) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _optimizer_tensors(model, optimizer) -> dict[str, torch.Tensor]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tensors = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            tensors[f"{key}/{names[id(parameter)]}"] = torch.as_tensor(value).contiguous()
    return tensors


def _load_optimizer(model, optimizer, tensors) -> None:
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for key, value in tensors.items():
        kind, name = key.split("/", 1)
        parameter = parameters[name]
        optimizer.state[parameter][kind] = value.to(parameter.device)
