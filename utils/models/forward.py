"""One forward pass of a classifier: precision, memory, packed or padded."""

import contextlib
import functools
import logging
import time
from dataclasses import dataclass

import torch

from utils.errors import InputError
from utils.models.classifier import Classifier
from utils.models.collate import Batch
from utils.models.families import FAMILIES
from utils.models.packing import packed_logits, supports_packing

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Precision:
    """`autocast()` for the forward pass and whether gradients need a scaler (fp16 only)."""

    name: str  # "float32", "bf16", "fp16"
    device: str

    @property
    def dtype(self) -> torch.dtype:
        return {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.name]

    def autocast(self):
        if self.name == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=self.dtype)


def choose_precision(device: torch.device, *, fp16: bool = False, bf16: bool = False) -> Precision:
    """The asked-for precision where the machine has it, else float32 with one warning; the run goes on."""
    if fp16 and bf16:
        raise InputError("--fp16 and --bf16 exclude each other; give one")
    asked = "fp16" if fp16 else "bf16" if bf16 else "float32"
    if asked == "fp16" and device.type != "cuda":
        logger.warning("--fp16 needs a CUDA GPU and this run is on %s: going on in float32", device.type)
        asked = "float32"
    elif asked == "bf16" and device.type == "cpu" and not cpu_has_bf16():
        logger.warning("--bf16: this CPU has no bfloat16 matrix instructions: going on in float32")
        asked = "float32"
    elif asked == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        logger.warning("--bf16 is not supported by this GPU: going on in float32; --fp16 would be faster")
        asked = "float32"
    elif asked == "bf16" and device.type == "cpu" and (times := cpu_bf16_time()) > 1.2:
        logger.warning(
            "--bf16: a matrix product in bfloat16 takes %.1f times as long as in float32 on this CPU; the run goes on in "
            "bfloat16 and would be faster without the flag", times,
        )  # fmt: skip
    return Precision(asked, device.type)


def cpu_has_bf16() -> bool:
    """Whether torch finds oneDNN and instructions for bfloat16 (AVX512-BF16 or AMX). Without them it computes in bfloat16
    too, slowly."""
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # absent in some versions: then no
    return torch.backends.mkldnn.is_available() and any(getattr(torch.cpu, ask, bool)() for ask in asks)


def cpu_bf16_time() -> float:
    """How many times as long a matrix product takes in bfloat16 as in float32, measured now (some 20 ms). Some CPUs have the
    instructions and are slower with them. Only a message depends on this number, so results do not depend on the clock."""
    least = []
    for dtype in (torch.bfloat16, torch.float32):
        matrix, times = torch.ones(512, 512, dtype=dtype), []
        for _ in range(5):
            began = time.perf_counter()
            matrix @ matrix
            times.append(time.perf_counter() - began)
        least.append(min(times))
    return least[0] / least[1]


def default_token_budget(classifier: Classifier, device: torch.device, *, training: bool) -> int:
    """Tokens per micro-batch that fit the memory at hand.

    CPU: small micro-batches stay near the cache; without a backward pass twice as many tokens do. CUDA: activations of about 40 hidden widths a token
    and layer (10 without a backward pass), in half the free memory; out of memory halves it anyway.
    """
    if device.type != "cuda":
        return 2048 if training else 4096
    config = classifier.model.config
    free, _ = torch.cuda.mem_get_info(device)
    per_token = config.hidden_size * 4 * (40 * config.num_hidden_layers if training else 40)
    return int(min(max(free * 0.5 / per_token, 1024), 262_144))


def forward(classifier: Classifier, model, batch: Batch, **options) -> torch.Tensor:
    """(b, C) logits in label order. `model` is the classifier's model or its compiled twin; options: of a padded pass."""
    if batch.cu_seqlens is not None:
        logits = packed_logits(model, batch.input_ids, batch.token_type_ids, batch.cu_seqlens, batch.max_length)
    else:
        segments = {} if batch.token_type_ids is None else {"token_type_ids": batch.token_type_ids}
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **segments, **options).logits
    return classifier.in_label_order(logits)


def use_packing(classifier: Classifier, precision: Precision, *, compiled: bool = False) -> bool:
    """Whether to lay sequences end to end instead of padding: on CUDA in half precision, where variable-length
    attention has kernels, and on the CPU, unless compiled (its attention reads the lengths), for the known families."""
    if not supports_packing(classifier.model):
        _say_padded(type(classifier.model).__name__)
        return False
    return precision.name != "float32" if precision.device == "cuda" else not compiled


@functools.cache  # once
def _say_padded(name: str) -> None:
    packed = ", ".join(family.model_type for family in FAMILIES if family.packed_head)
    logger.info("%s: its batches are padded; these run without padding: %s", name, packed)
