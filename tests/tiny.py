"""Small things that tests share: models with random weights for each family, MNLI-like folders, the shared real data."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real data at {SHARED}")

WORDS = (
    "the a dog cat man woman child runs sleeps eats sees red blue big small and not in on house park near with".split()
)
LABELS = ("contradiction", "entailment", "neutral")
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def pairs(n: int, seed: int = 0):
    """n learnable pairs: the first hypothesis word gives the label away."""
    rng = np.random.default_rng(seed)
    cue = {"contradiction": "not", "entailment": "the", "neutral": "near"}
    rows = []
    for i in range(n):
        label = LABELS[i % 3]
        premise = " ".join(rng.choice(WORDS, rng.integers(3, 12)))
        hypothesis = " ".join([cue[label], *rng.choice(WORDS, rng.integers(1, 6))])
        rows.append((premise, hypothesis, label))
    return [rows[i] for i in rng.permutation(n)]


def write_mnli(folder: Path, *, n_train: int = 48, n_dev: int = 24, seed: int = 0, test: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    parses = "sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse".split()
    for k, (split, n) in enumerate((("train", n_train), ("dev_matched", n_dev), ("dev_mismatched", n_dev))):
        annotators = ["label1"] if split == "train" else [f"label{i}" for i in range(1, 6)]
        lines = [
            "\t".join(
                ["index", "promptID", "pairID", "genre", *parses, "sentence1", "sentence2", *annotators, "gold_label"]
            )
        ]
        for i, (premise, hypothesis, label) in enumerate(pairs(n, seed * 10 + k)):
            empty = [""] * (len(annotators) - 1)
            lines.append(
                "\t".join(
                    [
                        str(i),
                        str(i),
                        f"p{i}",
                        f"genre{i % 2}",
                        "",
                        "",
                        "",
                        "",
                        premise,
                        hypothesis,
                        label,
                        *empty,
                        label,
                    ]
                )
            )
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for split in ("test_matched", "test_mismatched") if test else ():
        lines = ["\t".join(["index", "promptID", "pairID", "genre", *parses, "sentence1", "sentence2"])]
        lines += [
            "\t".join([str(i), str(i), f"p{i}", "g", "", "", "", "", p, h]) for i, (p, h, _) in enumerate(pairs(7, 99))
        ]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_tokenizer(folder: Path) -> Path:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {token: i for i, token in enumerate([*special, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **dict(zip(names, special, strict=True)))
    tokenizer.save_pretrained(folder)
    return folder


def config(family: str, **changes):
    import transformers

    common = {"vocab_size": 5 + len(WORDS), "max_position_embeddings": 64, "pad_token_id": 0}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if family == "distilbert":
        own = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "dropout": 0.0, "attention_dropout": 0.0}
        return transformers.DistilBertConfig(**common, **own, seq_classif_dropout=0.0, **changes)
    if family == "albert":
        return transformers.AlbertConfig(
            **common, **SIZES, **dropout, embedding_size=16, classifier_dropout_prob=0.0, **changes
        )
    if family == "roberta":
        return transformers.RobertaConfig(**common, **SIZES, **dropout, type_vocab_size=1, **changes)
    return transformers.BertConfig(**common, **SIZES, **dropout, **changes)


def write_config(folder: Path, family: str = "albert", **changes) -> Path:
    """A folder for --config_name and --tokenizer_name."""
    write_tokenizer(folder)
    config(family, **changes).save_pretrained(folder)
    return folder


def run_script(script: str, *args, check: int | None = 0, env=None, timeout: int = 300) -> subprocess.CompletedProcess:
    """Run one of the top-level scripts in its own process, offline, on one thread."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | (env or {})
    command = [sys.executable, str(ROOT / script), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=timeout)
    if check is not None:
        assert done.returncode == check, f"{command}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
