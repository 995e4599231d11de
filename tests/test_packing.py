"""Packed forward passes against the padded ones they replace. CPU, float32, tiny random models of the four families."""


import pytest
import torch
from transformers import AlbertConfig, AutoModelForSequenceClassification, BertConfig, DistilBertConfig, RobertaConfig

from utils.packing import packed_logits, packed_outputs

MAX_LENGTH = 36
LENGTHS = [17, 3, MAX_LENGTH, 5, 5, MAX_LENGTH]
# Large random weights: at the usual 0.02 a tiny model's logits hardly depend on its input, and anything would agree.
SIZES = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 64}
COMMON = {"vocab_size": 60, "num_labels": 3, "max_position_embeddings": MAX_LENGTH + 2, "initializer_range": 0.2}
CONFIGS = {
    "albert": lambda **options: AlbertConfig(embedding_size=16, **SIZES, **COMMON, **options),
    "bert": lambda **options: BertConfig(**SIZES, **COMMON, **options),
    "roberta": lambda **options: RobertaConfig(type_vocab_size=1, **SIZES, **COMMON, **options),
    "distilbert": lambda **options: DistilBertConfig(dim=32, n_heads=4, n_layers=3, hidden_dim=64, **COMMON, **options),
}
families = pytest.mark.parametrize("family", CONFIGS)


def build(family, **options):
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(CONFIGS[family](**options)).eval()


def example(family, lengths=tuple(LENGTHS), seed=1):
    """The same sequences twice: (input_ids, token_type_ids, cu_seqlens) packed, and the padded model's arguments."""
    lengths = list(lengths)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 60, (sum(lengths),), generator=generator)
    types = torch.randint(0, 2, ids.shape, generator=generator) if family in ("albert", "bert") else None
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int()

    def pad(x, value):
        return torch.nn.utils.rnn.pad_sequence(x.split(lengths), batch_first=True, padding_value=value)

    padded = {"input_ids": pad(ids, 1 if family == "roberta" else 0), "attention_mask": pad(torch.ones_like(ids), 0)}
    if types is not None:
        padded["token_type_ids"] = pad(types, 0)
    return (ids, types, cu_seqlens), padded


@families
def test_logits_and_cls_equal_the_padded_pass(family):
    model = build(family)
    packed, padded = example(family)
    with torch.no_grad():
        expected = model(**padded, output_hidden_states=True)
        out = packed_outputs(model, *packed, MAX_LENGTH)
    assert expected.logits.std() > 0.1  # the inputs matter
    torch.testing.assert_close(out.logits, expected.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(out.cls, expected.hidden_states[-1][:, 0], atol=1e-5, rtol=0)
    assert torch.equal(packed_logits(model, *packed, MAX_LENGTH), out.logits)
