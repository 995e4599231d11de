"""Padding-free sequence classification for the Hugging Face Trainer, or a loop of your own:

    from utils.models import pack
    pack.enable(model)
    Trainer(model, arguments, data_collator=pack.collate, train_dataset=rows)

`rows` are what a tokenizer gives: input_ids, token_type_ids for models with segments, label or labels. The model computes
no padding token; losses and logits equal those of padded batches up to rounding. Every family of `families` that runs
packed can be enabled; batches that are not packed still take the model's own path. One GPU for each process.
"""

import functools
import types

import torch
import torch.nn.functional as F

from utils.models.dropout import use_cheap_dropout
from utils.models.packing import packed_logits, supports_packing


def enable(model) -> None:
    """Let `model(**batch)` take batches of `collate` as well. Raises ValueError where its family does not run packed."""
    if not supports_packing(model):
        raise ValueError(f"{type(model).__name__} of type {model.config.model_type} cannot run packed")
    use_cheap_dropout(model)
    model.forward = types.MethodType(_with_packed(type(model).forward), model)


def collate(rows: list[dict]) -> dict:
    """One packed batch: lengths int64 (n,), input_ids and token_type_ids int64 (t,), labels (n,), max_length.

    Padding that a row's attention_mask marks is taken out. Raises ValueError for a row without tokens.
    """
    kept = [torch.as_tensor(row.get("attention_mask", [1] * len(row["input_ids"]))).bool() for row in rows]
    lengths = torch.stack([mask.sum() for mask in kept])
    if not lengths.all():
        raise ValueError(f"row {int(lengths.argmin())} of the batch has no tokens")
    batch = {"lengths": lengths, "max_length": int(lengths.max())}  # lengths first: the Trainer counts the rows by it
    for name in ("input_ids", "token_type_ids"):
        if name in rows[0]:
            batch[name] = torch.cat([torch.as_tensor(row[name])[mask] for row, mask in zip(rows, kept, strict=True)])
    for name in ("labels", "label"):
        if name in rows[0]:
            batch["labels"] = torch.as_tensor([row[name] for row in rows])
    return batch


def _with_packed(forward):
    @functools.wraps(forward)  # the Trainer reads the names of the arguments
    def packed_or_padded(self, *args, lengths=None, **batch):
        if lengths is None:
            return forward(self, *args, **batch)
        from transformers.modeling_outputs import SequenceClassifierOutput

        starts = F.pad(lengths.cumsum(0), (1, 0)).int()
        logits = packed_logits(self, batch["input_ids"], batch.get("token_type_ids"), starts, batch["max_length"])
        loss, labels = None, batch.get("labels")
        if labels is not None:
            count = {name: batch[name] for name in ("num_items_in_batch",) if name in batch}
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config, **count)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    return packed_or_padded
