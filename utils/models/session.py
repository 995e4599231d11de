"""A classifier that is loaded, placed on its device and ready to read text: what every script that runs a model needs."""

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from utils.data.examples import Examples
from utils.data.tokens import Encoded, encode
from utils.errors import RunFailed
from utils.flags import InferenceSettings
from utils.models.classifier import Classifier, load_classifier
from utils.models.distributed import Processes
from utils.models.forward import Precision, choose_precision
from utils.models.inference import Outputs, infer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """A classifier, the processes that run it, the precision, and the settings that say how it reads text."""

    classifier: Classifier
    processes: Processes
    precision: Precision
    settings: InferenceSettings

    @functools.cached_property
    def max_length(self) -> int:
        """Tokens per pair: --max_seq_length, or the model's number of positions where that is less."""
        return self.classifier.fitting_length(self.settings.max_seq_length)

    def encode(self, examples: Examples) -> Encoded:
        """The tokens of a split, with its labels."""
        return self.encode_texts(
            examples.texts,
            fingerprint=examples.fingerprint,
            labels=examples.labels,
            description=f"tokenising {examples.split}",
        )

    def encode_texts(self, texts, *, fingerprint: str, labels=None, description: str = "tokenising") -> Encoded:
        """The tokens of one or two text columns. The first process fills the cache, the others read it."""
        with self.processes.main_first():
            return encode(
                texts,
                self.classifier.tokenizer,
                fingerprint=fingerprint,
                max_length=self.max_length,
                segments=self.classifier.segments,
                labels=labels,
                cache_dir=self.settings.cache_dir,
                overwrite_cache=self.settings.overwrite_cache and self.processes.main,
                description=description,
            )

    def infer(self, data: Encoded, rows: np.ndarray, **options) -> Iterator[Outputs]:
        """Outputs of those rows, a block at a time; options as for `utils.models.inference.infer`."""
        return infer(
            self.classifier,
            data,
            rows,
            processes=self.processes,
            precision=self.precision,
            tokens_per_micro_batch=self.settings.tokens_per_micro_batch,
            **options,
        )

    def predict(self, data: Encoded, rows: np.ndarray | None = None, *, description: str = "predicting") -> np.ndarray:
        """Logits float32 (n, C) by label for all rows (or those given), in file order. Raises RunFailed at NaN."""
        rows = np.arange(len(data)) if rows is None else rows
        logits = np.concatenate([outputs.logits for outputs in self.infer(data, rows, description=description)])
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if len(bad):
            raise RunFailed(
                f"{description}: the logits of {len(bad)} of {len(rows)} examples are NaN or infinite, the first is row "
                f"{rows[bad[0]]}; the checkpoint is damaged or overflows in half precision: try without --fp16"
            )
        return logits


def open_session(
    labels: tuple[str, ...],
    settings: InferenceSettings,
    processes: Processes,
    *,
    seed: int = 0,
    need_head: bool = False,
) -> Session:
    """Load the classifier that the settings name for a task with these labels (see `load_classifier`)."""
    if settings.tf32 is not None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.tf32
        if processes.device.type != "cuda":
            logger.warning("--tf32 is for CUDA GPUs and this run is on %s: it changes nothing", processes.device.type)
    classifier = load_classifier(labels, settings, seed=seed, need_head=need_head)
    precision = choose_precision(processes.device, fp16=settings.fp16, bf16=settings.bf16)
    return Session(classifier, processes, precision, settings)
