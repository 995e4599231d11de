"""Whether a model of an architecture without a record can be used at all: two short texts show it, before any work."""

import torch

from utils.data.pooling import ENCODER, kind_of
from utils.errors import InputError

_SHORT, _LONG = "the cat sat", "the cat sat there and looked at all the other cats of the town"


def require_reliable(model, tokenizer) -> None:
    """Raise InputError, by name and with the reason, where the logits of a text change with the padding beside it (XLNet
    reads its class from the last position, FNet mixes padding in), where the model wants more than text, or where it is
    taken for an encoder and its first token sees no other."""
    name, training = type(model).__name__, model.training
    states = []
    tap = model.base_model.register_forward_hook(lambda module, inputs, output: states.append(output))
    try:
        model.eval()
        rows = [torch.tensor(ids) for ids in tokenizer([_SHORT, _LONG])["input_ids"]]
        padding = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
        mask = torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in rows])
        with torch.no_grad():
            together = model(input_ids=ids, attention_mask=mask.long()).logits
            alone = model(input_ids=rows[0][None], attention_mask=torch.ones(1, len(rows[0]), dtype=torch.long)).logits
        hidden = states[0].last_hidden_state
    except Exception as error:  # other models want boxes, entities, a fixed length, ...: any type
        why = f"{type(error).__name__} {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:200]
        raise InputError(f"{name} is not supported: it does not classify tokenised text ({why})") from error
    finally:
        tap.remove()
        model.train(training)
    if hidden.shape[:2] != ids.shape:
        raise InputError(f"{name} is not supported: it has no hidden state for each token")
    if not torch.allclose(together[:1], alone, atol=1e-4, rtol=1e-3):
        raise InputError(f"{name} is not supported: its answer to a text depends on the padding that stands beside it")
    if (
        kind_of(model.config) == ENCODER
        and torch.equal(hidden[0, :2], hidden[1, :2])
        and (rows[0][:2] == rows[1][:2]).all()
    ):
        raise InputError(f"{name} is not supported: its tokens see only those before them, but it is no known decoder")
