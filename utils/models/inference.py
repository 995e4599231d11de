"""The one inference path: predictions, HANS, embeddings. Sorted by length inside, file order outside; results do not
depend on the batch size beyond float rounding.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from utils.command_line import bars_wanted
from utils.data.tokens import Encoded
from utils.errors import RunFailed
from utils.models.classifier import Classifier
from utils.models.collate import Batch, collate, micro_batches
from utils.models.distributed import Processes
from utils.models.families import final_linear, read_by_head
from utils.models.forward import Precision, default_token_budget, forward, use_packing
from utils.models.packing import mean_by_sequence, packed_outputs

BLOCK_ROWS = 8192  # rows whose results are held at a time: sorting inside a block already leaves no padding to speak of


@dataclass(frozen=True)
class Outputs:
    """Results for `rows`, in that order: logits float32 (b, C) by label; features float32 (b, d) where asked for."""

    rows: np.ndarray
    logits: np.ndarray
    features: np.ndarray | None


def infer(
    classifier: Classifier,
    data: Encoded,
    rows: np.ndarray,
    *,
    processes: Processes,
    precision: Precision,
    pooling: str | None = None,
    layer: int | None = None,
    tokens_per_micro_batch: int | None = None,
    dropout: bool = False,
    description: str = "predicting",
) -> Iterator[Outputs]:
    """Yield the outputs of `rows`, a block of up to BLOCK_ROWS at a time, the same on every process.

    pooling: None for logits alone, "cls" = last_hidden_state[:, 0], "last" = that of the last token, "mean" over the
    tokens, "pooler" = what the classifier layer takes in; of an encoder-decoder, the decoder's states; layer: which
    hidden layer instead of the last (0 = embeddings). `dropout` keeps it on.
    A block is split over processes and gathered. Raises RunFailed where memory does not suffice for one sequence.
    """
    model = classifier.model.to(processes.device)
    model.train(dropout)
    budget = tokens_per_micro_batch or default_token_budget(classifier, processes.device, training=False)
    lengths = data.lengths
    packed = use_packing(classifier, precision) and layer is None
    bar = tqdm(total=len(rows), desc=description, unit=" ex", disable=not (processes.main and bars_wanted()))
    with bar, torch.inference_mode(), precision.autocast(), _Taps(classifier, pooling, layer) as taps:
        for start in range(0, len(rows), BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            by_length = np.argsort(-lengths[block], kind="stable")
            mine = block[by_length[processes.rank :: processes.size]]
            parts, waiting = [], [mine[part] for part in micro_batches(lengths[mine], budget, packed=packed)]
            while waiting:
                part = waiting.pop(0)
                try:
                    parts.append(_one(classifier, data, part, processes.device, packed, taps))
                except torch.OutOfMemoryError:
                    if len(part) == 1:
                        raise RunFailed(f"out of memory with one sequence of {int(lengths[part[0]])} tokens") from None
                    torch.cuda.empty_cache()
                    waiting[:0] = np.array_split(part, 2)
                    continue
                bar.update(min(len(part) * processes.size, bar.total - bar.n))
            order = np.empty(len(block), dtype=np.int64)
            order[np.concatenate([by_length[rank :: processes.size] for rank in range(processes.size)])] = np.arange(
                len(block)
            )
            yield Outputs(
                block,
                _gathered([logits for logits, _ in parts], processes, order),
                None if pooling is None else _gathered([features for _, features in parts], processes, order),
            )


def _gathered(parts: list[np.ndarray], processes: Processes, order: np.ndarray) -> np.ndarray:
    shards = processes.gather(np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32))
    return np.concatenate([shard for shard in shards if len(shard)])[order]


def _one(classifier, data, rows, device, packed, taps) -> tuple[np.ndarray, np.ndarray | None]:
    batch = collate(data, rows, device, packed=packed)
    if packed and taps.pooling:
        out = packed_outputs(
            classifier.model,
            batch.input_ids,
            batch.token_type_ids,
            batch.cu_seqlens,
            batch.max_length,
            every_token=taps.pooling in ("mean", "last"),
        )
        logits, bounds = classifier.in_label_order(out.logits), batch.cu_seqlens.long()
        if taps.pooling == "mean":
            features = mean_by_sequence(out.hidden, batch.cu_seqlens)
        elif taps.pooling == "last":
            features = out.hidden[bounds[1:] - 1]
        else:
            features = out.cls if taps.pooling == "cls" else taps.classifier_input
    else:
        every_layer = {} if taps.layer is None else {"output_hidden_states": True}
        logits = forward(classifier, classifier.model, batch, **every_layer)
        features = taps.features(batch)
    return logits.float().cpu().numpy(), None if features is None else features.float().cpu().numpy()


class _Taps(contextlib.AbstractContextManager):
    """Reads features from a forward pass through hooks on the model's own modules, so no family needs code here."""

    def __init__(self, classifier: Classifier, pooling: str | None, layer: int | None):
        self.pooling, self.layer = pooling, layer
        self._model = classifier.model
        self._handles = []
        self.classifier_input = self._hidden = None

    def __enter__(self):
        if self.pooling == "pooler":
            self._handles.append(final_linear(self._model).register_forward_pre_hook(self._keep_classifier_input))
        elif self.pooling:
            self._handles.append(self._model.base_model.register_forward_hook(self._keep_hidden))
        return self

    def __exit__(self, *exc):
        for handle in self._handles:
            handle.remove()

    def _keep_classifier_input(self, module, inputs):
        self.classifier_input = inputs[0]

    def _keep_hidden(self, module, inputs, output):
        if self.layer is None:
            self._hidden = output.last_hidden_state
        else:
            states = "decoder_hidden_states" if self._model.config.is_encoder_decoder else "hidden_states"
            self._hidden = output[states][self.layer]

    def features(self, batch: Batch) -> torch.Tensor | None:
        """(b, d) of the forward pass just made, None where only logits are wanted."""
        if self.pooling is None:
            return None
        if self.pooling == "pooler":
            return read_by_head(self._model, self.classifier_input, batch.input_ids)
        if self.pooling == "cls":
            return self._hidden[:, 0]
        mask = batch.attention_mask
        if self.pooling == "last":
            return self._hidden[torch.arange(len(mask), device=mask.device), mask.sum(1) - 1]
        return (self._hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
