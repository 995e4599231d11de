"""Families of models: packed passes against padded ones, in result and in speed, on random weights.

  python -m benchmarks.families                # about three minutes on two cores
  python -m benchmarks.families --no_timing    # differences only; the times of the last run stay

Writes benchmarks/results/families.json and, from it, docs/families.md. Differences: float32, CPU, a tiny model whose
inputs matter, sequences of 3 to 36 tokens. Of a family that runs padded, one sequence alone is held against the same one
in a padded batch. Times: a larger model, batches of 32 sequences with the lengths of MNLI (mean 39, longest 128), cut into
micro-batches as in training.
"""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from utils.command_line import ArgumentParser
from utils.data.pooling import ENCODER, choose_pooling, kind_of
from utils.data.tokens import Encoded
from utils.errors import InputError, run_script
from utils.files import read_json, write_json, write_text
from utils.models.classifier import Classifier
from utils.models.collate import collate, micro_batches
from utils.models.distributed import start
from utils.models.families import freeze_lower_layers
from utils.models.forward import Precision, forward
from utils.models.inference import infer
from utils.models.packing import supports_packing

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "families.json", ROOT / "docs" / "families.md"
LENGTHS = (17, 3, 36, 5, 5, 36)

HEAD = """# Families of models

This page is made by `python -m benchmarks.families`; do not edit it. Every model in the table can be trained, evaluated and tested
on HANS, and gives embeddings and logits. The columns:

- **batches**: *packed* batches hold no padding. The sequences stand end to end, and attention keeps them apart. *padded* batches
  hold sequences of similar length, filled up with padding. A script that runs a model padded logs this once.
- **pooling**: which token `get_embeddings.py --pooling auto` takes: `cls`, the first one, or `last`, the last one.
- **`--freeze_layers`**: whether this flag works for the family.
- **logits, embedding, gradient**: the largest difference between a packed pass and a padded one, in float32 on a tiny model
  with random weights. For families that run padded: the largest difference between a sequence alone and the same sequence in a
  padded batch.
- **examples/s**: speed of forward and backward passes, packed / padded. The model has random weights, 4 layers and width 256. It
  ran on a CPU with {cores} cores, {threads} of them used, with torch {torch} and transformers {transformers}.
"""
TAIL = """
## Decoders and encoder-decoders

GPT-2, Llama, Mistral, Qwen and similar models read a text from left to right, so only the last token has seen the whole text. Their
classifier layer reads the last token, and `--pooling auto` takes it too. `--pooling mean` takes the mean over all tokens.
`--pooling cls` is refused, because the first token has seen no other token. In BART and T5, the state of the decoder at the end of
the sentence is read. If a tokenizer names no padding token, its end-of-sentence token serves as one, and the saved tokenizer and
config say so.

    python get_embeddings.py --model_name_or_path gpt2 --task_name MNLI --data_dir $GLUE_DIR/MNLI --output_dir $OUT/gpt2

## Other models

Any other model that transformers loads as a sequence classifier runs padded. It must pass a test at the start: the logits of a
short text must be the same alone and in a batch with a longer text. Some models fail this test and are refused. XLNet reads its
class from the last position, where the padding is. In FNet, YOSO and CANINE, padding changes the answer to a text. Perceiver is
refused because it gives no hidden state for each token. A model that wants more than text is refused with the error that it raises.

`--freeze_layers` freezes the embeddings, the lowest layers, and what those layers share with higher ones (tables of relative
positions). ALBERT cannot freeze layers, because it has one layer that it uses many times. A packed pass needs transformers' own
attention (`sdpa`). DeBERTa with `talking_head` runs padded.

To make a new family run packed, write one record: [extending.md](extending.md#an-encoder-family).
"""


@dataclass(frozen=True)
class Row:
    """A family to measure: its name, the config's model type and options, and what a user should know."""

    name: str
    model_type: str
    options: dict = field(default_factory=dict)
    note: str = ""


_RELATIVE = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["c2p", "p2c"]}
_BUCKETS = {"position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm"}
_REGROUPED = "attention itself runs on a padded view; all other layers see no padding"
_NO_SEPARATOR = "its tokenizer puts nothing between the two texts of a pair"
ROWS = (
    Row("ALBERT", "albert", {"embedding_size": 16}, "layers share their weights"),
    Row("BERT", "bert"),
    Row("RoBERTa", "roberta"),
    Row("XLM-RoBERTa", "xlm-roberta"),
    Row("CamemBERT", "camembert"),
    Row("DistilBERT", "distilbert"),
    Row("ELECTRA", "electra", {"embedding_size": 16}),
    Row("MPNet", "mpnet", {}, _REGROUPED),
    Row("ModernBERT", "modernbert", {"local_attention": 16}, "as MPNet in layers with a window, for longer sequences"),
    Row("ModernBERT, mean", "modernbert", {"local_attention": 16, "classifier_pooling": "mean"}, "its head takes the mean"),
    Row("DeBERTa", "deberta", _RELATIVE, _REGROUPED),
    Row("DeBERTa v2", "deberta-v2", {**_RELATIVE, **_BUCKETS, "conv_kernel_size": 3}, f"{_REGROUPED}; so does its convolution"),
    Row("DeBERTa v3", "deberta-v2", {**_RELATIVE, **_BUCKETS}, _REGROUPED),
    Row("ERNIE", "ernie", {}, "as any encoder without a record"),
    Row("GPT-2", "gpt2", {}, _NO_SEPARATOR),
    Row("Llama", "llama", {}, _NO_SEPARATOR),
    Row("Mistral", "mistral", {"num_key_value_heads": 2}, _NO_SEPARATOR),
    Row("Qwen2", "qwen2", {"num_key_value_heads": 2}, _NO_SEPARATOR),
    Row("Qwen3", "qwen3", {"num_key_value_heads": 2, "head_dim": 8}, _NO_SEPARATOR),
    Row("BART", "bart", {}, "the decoder's states are read; --freeze_layers counts the encoder's layers"),
    Row("T5", "t5", {}, "as BART"),
)  # fmt: skip
TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 60}
TIMED = TINY | {"hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 1024, "vocab_size": 4000}
_DROPOUTS = "hidden_dropout_prob attention_probs_dropout_prob classifier_dropout_prob dropout attention_dropout".split()
_DROPOUTS += "seq_classif_dropout embd_pdrop attn_pdrop resid_pdrop dropout_rate".split()
PAD, END = 1, 2


def build(row: Row, sizes=None, positions: int = 40, spread: float = 0.2):
    """A classifier of three classes with random weights and no dropout. spread: of the weights; at the usual 0.02 a tiny
    model hardly depends on its input, and anything would agree."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    sizes = {**(sizes or TINY)}
    if kind_of(AutoConfig.for_model(row.model_type)) not in (ENCODER, "a decoder"):  # sizes of its two halves
        halves = ("encoder", "decoder")
        sizes |= {f"{half}_layers": sizes["num_hidden_layers"] for half in halves}
        sizes |= {f"{half}_attention_heads": sizes["num_attention_heads"] for half in halves}
        sizes |= {f"{half}_ffn_dim": sizes["intermediate_size"] for half in halves}
        sizes |= {"num_decoder_layers": sizes["num_hidden_layers"], "d_ff": sizes["intermediate_size"]}
        sizes |= {"d_kv": sizes["hidden_size"] // sizes["num_attention_heads"]}
    tokens = {"pad_token_id": PAD, "bos_token_id": 0, "eos_token_id": END, "decoder_start_token_id": END}
    tokens |= {"cls_token_id": 0, "sep_token_id": END}
    spreads = {"initializer_range": spread, "init_std": spread}
    options = {**spreads, **dict.fromkeys(_DROPOUTS, 0.0), **sizes, **tokens, "max_position_embeddings": positions}
    torch.manual_seed(0)
    config = AutoConfig.for_model(row.model_type, num_labels=3, use_cache=False, **options, **row.options)
    return AutoModelForSequenceClassification.from_config(config)


def make_data(model, lengths, seed: int = 1) -> Encoded:
    """Random sequences of these lengths; each ends in the end-of-sentence token."""
    rng, lengths = np.random.default_rng(seed), np.asarray(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(5, model.config.vocab_size, offsets[-1]).astype(np.int32)
    ids[offsets[1:] - 1] = END
    segments = None
    if (getattr(model.config, "type_vocab_size", 0) or 0) > 1:
        segments = rng.integers(0, 2, offsets[-1]).astype(np.uint8)
    return Encoded(ids, segments, offsets, None, PAD, "random")


def classifier_of(model) -> Classifier:
    return Classifier(model, None, ("a", "b", "c"))


def gradients(classifier, data, batches, *, packed: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits of all rows, and gradients of their mean cross-entropy, from batches of these rows."""
    model, logits = classifier.model.train(), torch.empty(len(data), 3)
    model.zero_grad(set_to_none=True)
    for rows in batches:
        found = forward(classifier, model, collate(data, rows, torch.device("cpu"), packed=packed))
        loss = torch.nn.functional.cross_entropy(found, torch.from_numpy(rows) % 3, reduction="sum") / len(data)
        loss.backward()
        logits[rows] = found.detach()
    return logits, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def embeddings(classifier, data, batches, layer: int | None = None) -> np.ndarray:
    """Embeddings of all rows, (n, d), as `get_embeddings.py --pooling auto` makes them; a given layer runs padded."""
    pooling = choose_pooling(classifier.model.config, "auto")
    options = {"processes": start(use_cpu=True), "precision": Precision("float32", "cpu")}
    found = [infer(classifier, data, rows, pooling=pooling, layer=layer, **options) for rows in batches]
    return np.concatenate([next(outputs).features for outputs in found])


def differences(row: Row) -> dict[str, float]:
    """The largest difference of logits, embeddings and gradients between the two ways to compute them; spread: of the
    logits over the examples, which shows that the inputs matter."""
    model = build(row)
    classifier, data, packed = classifier_of(model), make_data(model, LENGTHS), supports_packing(model)
    whole, alone = [np.arange(len(data))], list(np.arange(len(data))[:, None])
    logits, found = gradients(classifier, data, whole if packed else alone, packed=packed)
    expected_logits, expected = gradients(classifier, data, whole, packed=False)
    if found.keys() != expected.keys():
        raise AssertionError(f"{row.name}: gradients of other parameters: {found.keys() ^ expected.keys()}")
    vectors = embeddings(classifier, data, whole if packed else alone)
    return {
        "logits": float((logits - expected_logits).abs().max()),
        "embedding": float(np.abs(vectors - embeddings(classifier, data, whole, -1 if packed else None)).max()),
        "gradient": max(float((found[name] - expected[name]).abs().max()) for name in expected),
        "spread": float(expected_logits.std(0).max()),
    }


def throughput(row: Row, *, rounds: int) -> dict[str, float]:
    """Examples a second, forward and backward, packed and padded in turn; the best of the rounds."""
    model = build(row, TIMED, positions=140, spread=0.02)
    classifier, rng = classifier_of(model), np.random.default_rng(0)
    data = make_data(model, np.clip(np.round(rng.lognormal(3.52, 0.5, 64)), 8, 128).astype(np.int64))
    best: dict[str, float] = {}
    for _ in range(rounds):
        for way in ("packed", "padded") if supports_packing(model) else ("padded",):
            began = time.perf_counter()
            for batch in np.split(np.arange(len(data)), 2):
                parts = micro_batches(data.lengths[batch], 2048, packed=way == "packed")
                gradients(classifier, data, [batch[part] for part in parts], packed=way == "packed")
            best[way] = max(best.get(way, 0.0), len(data) / (time.perf_counter() - began))
    return best


def about(row: Row) -> dict[str, str]:
    """What the code says of a family: how batches run, the pooling of `auto`, whether layers can be frozen."""
    model = build(row)
    try:
        freeze_lower_layers(model, 1)
        frozen = "yes"
    except InputError:
        frozen = "no"
    pooling = choose_pooling(model.config, "auto")
    return {"batches": "packed" if supports_packing(model) else "padded", "pooling": pooling, "freeze": frozen}


def page(results: dict) -> str:
    """The text of docs/families.md."""
    lines = [
        HEAD.format(**results["machine"]),
        "| family | model type | batches | pooling | `--freeze_layers` | logits | embedding | gradient | examples/s | notes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        found = results["families"][row.name]
        different = " | ".join(f"{found['differences'][key]:.0e}" for key in ("logits", "embedding", "gradient"))
        times = found.get("examples_per_second", {})
        speed = f"{times['padded']:.0f}" if times else "-"
        if "packed" in times:
            speed = f"{times['packed']:.0f} / {speed} = {times['packed'] / times['padded']:.2f}x"
        code = " | ".join(found["about"].values())
        lines.append(f"| {row.name} | `{row.model_type}` | {code} | {different} | {speed} | {row.note} |")
    return "\n".join([*lines, TAIL])


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--no_timing", action="store_true", help="measure differences only")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of each family; the best counts")
    args = parser.parse_args(argv)
    before = read_json(RESULTS) if RESULTS.exists() else {"families": {}}
    families = {}
    for row in ROWS:
        families[row.name] = {"about": about(row), "differences": differences(row)}
        old = before["families"].get(row.name, {})
        times = old.get("examples_per_second") if args.no_timing else throughput(row, rounds=args.rounds)
        families[row.name] |= {"examples_per_second": times} if times else {}
        print(row.name, families[row.name], flush=True)
    import transformers

    versions = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), **versions}
    results = {"machine": before.get("machine", machine) if args.no_timing else machine, "families": families}
    write_json(RESULTS, results)
    write_text(PAGE, page(results))
    print(f"written: {RESULTS.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    run_script(main)
