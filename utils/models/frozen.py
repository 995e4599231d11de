"""What frozen layers give, computed once: `--freeze_layers N --cache_frozen`. Each training pass then starts at layer N.

The hidden states that enter layer N are computed without dropout and kept beside the token cache: one row a token, in
the precision of the run. The entry's key is the content of the tokens and of the weights below layer N.
"""

import contextlib
import hashlib
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import torch

from utils.data.tokens import Encoded
from utils.errors import InputError
from utils.files import cache_entry, cache_home, entry_damage, reserve_space
from utils.models.collate import Batch, collate, micro_batches
from utils.models.families import layers_of
from utils.models.forward import default_token_budget, forward, use_packing
from utils.models.session import Session

logger = logging.getLogger(__name__)

BLOCK_ROWS = 8192


class FrozenOutputs:
    """Hidden states (t, d) that enter layer `count`, of the examples `rows` of a split, and passes that start from them."""

    def __init__(self, session: Session, data: Encoded, rows: np.ndarray, count: int):
        """Compute the states, or find them computed. Raises InputError where no layer is left to train, the disk
        has too little room, or the layers hand on more than hidden states (T5: a bias of positions)."""
        self._session, self._data, self._count = session, data, count
        self._layers = layers_of(session.classifier.model)
        if count >= len(self._layers):
            raise InputError(f"--cache_frozen: with --freeze_layers {count} of {len(self._layers)} no layer is trained")
        self._rows = np.unique(rows)
        self._offsets = np.concatenate([[0], np.cumsum(data.lengths[self._rows])])
        self._dtype = session.precision.dtype
        self._output_size = None  # how many things a layer returns: None where it is the hidden states alone
        with session.processes.main_first():
            folder = Path(session.settings.cache_dir or cache_home()) / "frozen" / self._key()
            if problem := entry_damage(folder):
                logger.warning(
                    "cached outputs of frozen layers in %s are damaged (%s): computing them again", folder, problem
                )
                shutil.rmtree(folder)
            if not folder.exists():
                self._compute(folder)
        self._states = np.load(folder / "states.npy", mmap_mode="r", allow_pickle=False)
        with contextlib.suppress(_Reached), torch.inference_mode():
            self._reach(self._rows[:1])
        self._require_agreement(self._rows[:4])

    @contextlib.contextmanager
    def resume(self, batch: Batch):
        """Inside, a forward pass of this batch does no work below layer `count`, and no dropout there."""
        hidden = self._states_of(batch)

        def skip(states, *args, **options):
            return states if self._output_size is None else (states, *[None] * (self._output_size - 1))

        lower, first = self._layers[: self._count], self._layers[self._count]
        handle = first.register_forward_pre_hook(lambda module, inputs: (hidden, *inputs[1:]))
        for layer in lower:
            layer.forward = skip
        try:
            yield
        finally:
            handle.remove()
            for layer in lower:
                del layer.forward

    def _states_of(self, batch: Batch) -> torch.Tensor:
        """(1, t, d) packed or (b, L, d) padded, float32."""
        places = np.searchsorted(self._rows, batch.rows)
        starts, lengths = self._offsets[places], np.diff(self._offsets)[places]
        ends = np.cumsum(lengths)
        states = self._states[np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1])]
        hidden = torch.from_numpy(states).view(self._dtype).to(self._session.processes.device).float()
        if batch.attention_mask is None:
            return hidden[None]
        padded = hidden.new_zeros(*batch.attention_mask.shape, hidden.shape[1])
        padded[batch.attention_mask.bool()] = hidden
        return padded

    def _key(self) -> str:
        """Of the tokens, the rows, the weights below layer `count` (and any that are frozen beside them), the precision."""
        digest = hashlib.sha256(json.dumps([self._count, self._session.precision.name]).encode())
        for array in (self._data.input_ids, self._data.token_type_ids, self._data.offsets, self._rows):
            digest.update(np.ascontiguousarray(array if array is not None else 0))
        model = self._session.classifier.model
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                digest.update(name.encode() + parameter.detach().cpu().numpy().tobytes())
        digest.update(model.config.to_json_string().encode())
        return digest.hexdigest()[:32]

    def _compute(self, folder: Path) -> None:
        width = self._session.classifier.model.config.hidden_size
        size = int(self._offsets[-1]) * width * self._dtype.itemsize
        logger.info("the outputs of %d frozen layers take %.1f GB in %s", self._count, size / 1e9, folder)
        kind = np.int32 if self._dtype == torch.float32 else np.int16  # the bits: numpy has no bfloat16
        with cache_entry(folder) as entry:
            path = entry / "states.npy"
            states = np.lib.format.open_memmap(path, "w+", kind, (int(self._offsets[-1]), width))
            try:
                reserve_space(path)
            except OSError as error:
                raise InputError(
                    f"--cache_frozen: no room for {size / 1e9:.1f} GB in {folder.parent} ({error.strerror}); leave it out, "
                    "or give another --cache_dir"
                ) from None
            self._fill(states)
            states.flush()

    def _fill(self, states: np.ndarray) -> None:
        session, lengths = self._session, self._data.lengths
        budget = session.settings.tokens_per_micro_batch
        budget = budget or default_token_budget(session.classifier, session.processes.device, training=False)
        packed = use_packing(session.classifier, session.precision)
        for start in range(0, len(self._rows), BLOCK_ROWS):
            block = self._rows[start : start + BLOCK_ROWS]
            for part in micro_batches(lengths[block], budget, packed=packed):
                try:
                    with torch.inference_mode():
                        self._reach(block[part])
                except _Reached as reached:
                    bits = torch.int32 if self._dtype == torch.float32 else torch.int16
                    found = reached.states.to(self._dtype).view(bits).cpu().numpy()
                done = 0
                for row in start + part:
                    begin, end = self._offsets[row], self._offsets[row + 1]
                    states[begin:end] = found[done : done + end - begin]
                    done += end - begin

    def _require_agreement(self, rows: np.ndarray) -> None:
        session, model = self._session, self._session.classifier.model
        packed = use_packing(session.classifier, session.precision)
        batch = collate(self._data, rows, session.processes.device, packed=packed)
        with torch.inference_mode(), session.precision.autocast():
            whole = forward(session.classifier, model, batch).float()
            with self.resume(batch):
                resumed = forward(session.classifier, model, batch).float()
        if not torch.allclose(whole, resumed, atol=1e-4 if self._dtype == torch.float32 else 0.1):
            raise InputError(
                f"--cache_frozen: the layers of {type(model).__name__} hand on more than hidden states; leave it out"
            )

    def _reach(self, rows: np.ndarray) -> None:
        """Run those examples up to layer `count` and raise _Reached with what enters it, (t, d)."""
        session = self._session
        model = session.classifier.model.to(session.processes.device).eval()
        batch = collate(
            self._data, rows, session.processes.device, packed=use_packing(session.classifier, session.precision)
        )

        def stop(module, inputs):
            mask = batch.attention_mask
            raise _Reached(inputs[0][0] if mask is None else inputs[0][mask.bool()])

        def learn(module, inputs, output):
            self._output_size = len(output) if isinstance(output, tuple) else None

        handles = (
            self._layers[self._count].register_forward_pre_hook(stop),
            self._layers[0].register_forward_hook(learn),
        )
        try:
            with session.precision.autocast():
                forward(session.classifier, model, batch)
        finally:
            for handle in handles:
                handle.remove()


class _Reached(Exception):
    """A pass came to the first trained layer; `states` (t, d) enter it."""

    def __init__(self, states: torch.Tensor):
        super().__init__()
        self.states = states
