"""Packed forward passes against the padded ones they replace. CPU, float32, tiny random models of four families; the
results of all families are compared in test_families.py."""

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ErnieConfig,
    RobertaConfig,
)

from utils.models import packing
from utils.models.packing import packed_logits, packed_outputs, supports_packing

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
_OFF = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
NO_DROPOUT = {
    "albert": {**_OFF, "classifier_dropout_prob": 0.0},
    "bert": _OFF,
    "roberta": _OFF,
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0},
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


def on_meta(packed):
    return [None if x is None else x.to("meta") for x in packed]


def gradients(model, logits, labels):
    model.zero_grad(set_to_none=True)
    torch.nn.functional.cross_entropy(logits, labels).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


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


def rows_of_feed_forward(model, packed, **options):
    """How many tokens each call of a feed-forward network computed, in the order of the calls."""
    kind = {"bert": "BertIntermediate", "distilbert": "FFN"}.get(model.config.model_type, "RobertaIntermediate")
    if model.config.model_type == "albert":
        found = [layer.ffn for group in model.albert.encoder.albert_layer_groups for layer in group.albert_layers]
    else:
        found = [module for module in model.modules() if type(module).__name__ == kind]
    rows = []
    handles = [module.register_forward_hook(lambda m, x, y: rows.append(y.shape[1])) for module in found]
    packed_outputs(model, *packed, MAX_LENGTH, **options)
    for handle in handles:
        handle.remove()
    return rows


@families
def test_the_last_feed_forward_network_computes_first_tokens_alone(family):
    model = build(family)
    packed, _ = example(family)
    tokens, sequences = len(packed[0]), len(LENGTHS)
    assert rows_of_feed_forward(model, packed) == [tokens, tokens, sequences]
    assert rows_of_feed_forward(model, packed, every_token=True) == [tokens] * 3
    out, whole = (packed_outputs(model, *packed, MAX_LENGTH, every_token=asked) for asked in (False, True))
    assert out.hidden is None and whole.hidden.shape[0] == tokens
    torch.testing.assert_close(out.logits, whole.logits, atol=1e-6, rtol=1e-5)


def test_an_albert_with_several_groups_shortens_the_last_call_of_its_last_layer():
    model = build("albert", num_hidden_groups=2, inner_group_num=2)  # three layers: groups 0, 0, 1 of two layers each
    packed, padded = example("albert")
    tokens, sequences = len(packed[0]), len(LENGTHS)
    assert rows_of_feed_forward(model, packed) == [tokens] * 5 + [sequences]
    with torch.no_grad():
        torch.testing.assert_close(packed_logits(model, *packed, MAX_LENGTH), model(**padded).logits, atol=1e-5, rtol=0)


@families
def test_every_gradient_equals_the_padded_one(family):
    model = build(family, **NO_DROPOUT[family]).train()
    packed, padded = example(family)
    labels = torch.arange(len(LENGTHS)) % 3
    expected = gradients(model, model(**padded).logits, labels)
    actual = gradients(model, packed_logits(model, *packed, MAX_LENGTH), labels)
    assert expected.keys() == actual.keys()
    assert max(gradient.abs().max() for gradient in expected.values()) > 0.01
    for name, gradient in expected.items():
        torch.testing.assert_close(
            actual[name], gradient, atol=1e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])  # transformers' ALBERT has no checkpointing
def test_gradient_checkpointing_keeps_sequences_apart_in_the_backward_pass(family, use_reentrant):
    model = build(family, **NO_DROPOUT[family]).train()
    packed, _ = example(family)
    labels = torch.arange(len(LENGTHS)) % 3
    expected = gradients(model, packed_logits(model, *packed, MAX_LENGTH), labels)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    calls = []
    model.base_model.register_forward_hook(lambda *_: calls.append("forward"))
    for module in model.modules():
        if hasattr(module, "attention_head_size"):
            module.register_forward_hook(lambda *_: calls.append("attention"))
    actual = gradients(model, packed_logits(model, *packed, MAX_LENGTH), labels)
    assert calls[calls.index("forward") :].count("attention") == 3  # each layer did run again
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, atol=1e-6, rtol=1e-5)


@families
def test_a_sequence_does_not_depend_on_its_neighbours(family):
    model = build(family)
    (ids, types, cu_seqlens), _ = example(family)
    with torch.no_grad():
        together = packed_logits(model, ids, types, cu_seqlens, MAX_LENGTH)
        for i, (start, end) in enumerate(zip(cu_seqlens.tolist(), cu_seqlens.tolist()[1:], strict=False)):
            alone = packed_logits(
                model,
                ids[start:end],
                None if types is None else types[start:end],
                torch.tensor([0, end - start], dtype=torch.int32),
                end - start,
            )
            torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)


@families
def test_the_model_is_unchanged_outside_packed_passes(family):
    model = build(family)
    packed, padded = example(family)
    config, state = model.config.to_json_string(), copy.deepcopy(model.state_dict())
    with torch.no_grad():
        before = model(**padded).logits
        packed_logits(model, *packed, MAX_LENGTH)
        assert torch.equal(model(**padded).logits, before)
        unpadded = {name: value[2:3] for name, value in padded.items()}  # no padding: transformers drops the mask
        kept = model(**unpadded).logits
        model.set_attn_implementation("sdpa")
        assert torch.equal(model(**padded).logits, before)
        assert torch.equal(model(**unpadded).logits, kept)
        packed_logits(model, *packed, MAX_LENGTH)  # and back again
    assert model.config.to_json_string() == config
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@families
def test_no_mask_is_made(family, monkeypatch):
    model = build(family)
    packed, _ = example(family)
    masks = []
    inner = packing._attention_by_sequence
    monkeypatch.setattr(packing, "_attention_by_sequence", lambda *a: masks.append("packed") or inner(*a))
    for module in model.modules():
        if hasattr(module, "attention_head_size"):
            module.register_forward_hook(
                lambda _, args, kwargs, out: masks.extend(
                    x for x in (*args[1:], *kwargs.values()) if isinstance(x, torch.Tensor) and x.ndim == 4
                ),
                with_kwargs=True,
            )
    with torch.no_grad():
        packed_logits(model, *packed, MAX_LENGTH)
    assert masks == ["packed"] * 3


@pytest.mark.parametrize("family", ["albert", "bert"])
def test_segment_ids_reach_the_model(family):
    model = build(family)
    (ids, types, cu_seqlens), _ = example(family)
    changed = types.clone()
    changed[cu_seqlens[1]] ^= 1  # the second sequence's first token
    with torch.no_grad():
        logits = packed_logits(model, ids, types, cu_seqlens, MAX_LENGTH)
        others = packed_logits(model, ids, changed, cu_seqlens, MAX_LENGTH)
        zeros = packed_logits(model, ids, torch.zeros_like(types), cu_seqlens, MAX_LENGTH)
        absent = packed_logits(model, ids, None, cu_seqlens, MAX_LENGTH)
    moved = (logits - others).abs().amax(dim=1) > 1e-3
    assert moved.tolist() == [False, True, False, False, False, False]
    assert torch.equal(zeros, absent)


def test_training_mode_applies_dropout_and_eval_mode_does_not():
    model = build("bert", attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0).train()
    packed, _ = example("bert")
    with torch.no_grad():
        first, second = (packed_logits(model, *packed, MAX_LENGTH) for _ in range(2))
        assert (first - second).abs().max() > 1e-3
        model.eval()
        first, second = (packed_logits(model, *packed, MAX_LENGTH) for _ in range(2))
        assert torch.equal(first, second)


def test_autocast():
    model = build("albert")
    packed, _ = example("albert")
    with torch.no_grad():
        exact = packed_logits(model, *packed, MAX_LENGTH)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = packed_logits(model, *packed, MAX_LENGTH)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.1, rtol=0.1)


@families
def test_the_cuda_code_reads_nothing_back_from_the_device(family):
    """On the meta device, where tensors have no values, reading one raises; the CUDA kernel has a shape-only twin."""
    model = build(family, **NO_DROPOUT[family]).train().to("meta", dtype=torch.bfloat16)
    packed, _ = example(family)
    out = packed_outputs(model, *on_meta(packed), MAX_LENGTH)
    assert out.logits.shape == (len(LENGTHS), 3) and out.cls.shape == (len(LENGTHS), 32)
    out.logits.sum().backward()
    assert all(p.grad.shape == p.shape for p in model.parameters() if p.grad is not None)


@families
def test_the_cuda_code_compiles_once_for_all_shapes(family, monkeypatch):
    graphs = CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(packing._forward, dynamic=True, fullgraph=True, backend=graphs)
    monkeypatch.setattr(packing, "_compiled_forward", lambda: compiled)
    model = torch.compile(build(family).to("meta", dtype=torch.bfloat16), dynamic=True)
    for lengths in (LENGTHS, [5, 9], [4] * 11, [MAX_LENGTH, 3, 20]):
        packed, _ = example(family, lengths)
        assert packed_logits(model, *on_meta(packed), max(lengths)).shape == (len(lengths), 3)
    assert graphs.frame_count == 1


def test_jagged_attention_equals_attention_by_sequence():
    """What CUDA uses under attention dropout and in float32."""
    _, _, cu_seqlens = example("bert")[0]
    query, key, value = torch.randn(3, sum(LENGTHS), 4, 8, generator=torch.Generator().manual_seed(0))
    jagged = packing._attention_jagged(query, key, value, cu_seqlens, MAX_LENGTH, 0.0, 0.5)
    batch = (x.transpose(0, 1)[None] for x in (query, key, value))
    expected = packing._attention_by_sequence(*batch, cu_seqlens, MAX_LENGTH, 0.0, 0.5)
    torch.testing.assert_close(jagged[None], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda model: model.set_attn_implementation("eager"), id="eager attention chosen"),
        pytest.param(lambda model: setattr(model.config, "is_decoder", True), id="decoder"),
        pytest.param(lambda model: setattr(model.config, "num_attention_heads", 8), id="head size 4"),
    ],
)
def test_unsupported_models_are_refused(change):
    model = build("bert")
    assert supports_packing(model)
    change(model)
    assert not supports_packing(model)
    packed, _ = example("bert")
    with pytest.raises(ValueError, match="cannot run packed"):
        packed_logits(model, *packed, MAX_LENGTH)


def test_other_architectures_are_refused():
    config = ErnieConfig(**SIZES, **COMMON)
    assert not supports_packing(AutoModelForSequenceClassification.from_config(config))
    assert not supports_packing(build("bert").base_model)


def test_a_max_length_that_is_too_small_is_an_error():
    (ids, types, cu_seqlens), _ = example("bert")
    with pytest.raises(ValueError, match=f"the longest packed sequence has {MAX_LENGTH} tokens"):
        packed_logits(build("bert"), ids, types, cu_seqlens, MAX_LENGTH - 1)
