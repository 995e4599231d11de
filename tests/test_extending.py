"""The recipes of docs/extending.md: their code runs as printed, and each changes one file only."""

import filecmp
import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
import transformers

import select_examples
from tests import tiny
from tests.documents import code, section
from tests.test_report import write_run
from utils.models import families
from utils.models.packing import packed_logits, supports_packing
from utils.selection.selection import Selection
from utils.selection.strategies import registry

PAGE = "docs/extending.md"
RECIPES = {  # heading -> the one file that the recipe changes, and the text before which the code goes (None: the end)
    "## A strategy": ("utils/selection/strategies/text_based.py", None),
    "## A data set": ("utils/data/tasks.py", ")  # fmt: skip\n\nTASKS = "),
    "## An encoder family": ("utils/models/families.py", ")\nOTHER = "),
    "## A metric": ("utils/data/metrics.py", None),
}
CLASSES = {"contradiction": "no", "entailment": "yes", "neutral": "maybe"}


def recipe(heading: str) -> str:
    (block,) = code(section(PAGE, heading), "python")
    return block


def write_reviews(folder):
    folder.mkdir()
    for split, n in (("train", 24), ("dev", 12)):
        rows = [(premise, hypothesis, CLASSES[label]) for premise, hypothesis, label in tiny.pairs(n)]
        lines = ["\t".join(row) for row in (("premise", "hypothesis", "label"), *rows)]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def unchanged_registry():
    """What a plugin registers is taken back."""
    kept = [(table, dict(table)) for table in (registry.STRATEGIES, registry._PARAMETER_HELP)]
    yield
    for table, before in kept:
        table.clear()
        table.update(before)
    sys.modules.pop("strategy_plugin_by_length", None)


def test_a_strategy_as_a_plugin(tmp_path, unchanged_registry):
    (tmp_path / "by_length.py").write_text(recipe("## A strategy"))
    mnli = tiny.write_mnli(tmp_path / "mnli")
    flags = {"plugin": tmp_path / "by_length.py", "strategy": "by_length", "keep_out": 0.25, "num_examples": 6}
    flags = {name: str(value) for name, value in flags.items()} | {"data_dir": str(mnli)}
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    select_examples.main([*words, "--output_dir", str(tmp_path / "out")])
    chosen = Selection.load(tmp_path / "out" / "selection.npz")
    (tmp_path / "flags.json").write_text(json.dumps(flags | {"output_dir": str(tmp_path / "again")}))
    select_examples.main([str(tmp_path / "flags.json")])
    assert Selection.load(tmp_path / "again" / "selection.npz").digest == chosen.digest
    lengths = [len(premise) + len(hypothesis) for premise, hypothesis, _ in tiny.pairs(48, 0)]
    by_length = sorted(lengths, reverse=True)
    assert sorted((lengths[i] for i in chosen.indices), reverse=True) == by_length[12:18]  # a quarter of 48 is left out


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project's code in which the recipes for changes inside it have been followed."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(tiny.ROOT / "utils", root / "utils", ignore=shutil.ignore_patterns("__pycache__"))
    for script in tiny.ROOT.glob("*.py"):
        shutil.copy(script, root)
    for heading, (name, before) in RECIPES.items():
        block = recipe(heading)
        if heading == "## A strategy":
            block = block[block.index("@strategy") :]  # without the imports, as the page says
        if heading == "## A data set":
            assert block.count('metrics=("acc",)') == 1
            block = block.replace('metrics=("acc",)', 'metrics=("acc", "macro_f1")')
        text = (root / name).read_text()
        if before is None:
            text += "\n\n" + block
        else:
            assert text.count(before) == 1
            text = text.replace(before, f"{textwrap.indent(block.rstrip(), '    ')},\n{before}")
        (root / name).write_text(text)
    return root


def test_the_recipes_inside_the_project_change_the_files_they_name_and_no_other(project):
    names = [str(path.relative_to(project)) for path in project.rglob("*.py")]
    _, changed, missing = filecmp.cmpfiles(tiny.ROOT, project, names, shallow=False)
    assert sorted(changed) == sorted(name for name, _ in RECIPES.values()) and not missing
    for heading, (name, _) in RECIPES.items():
        assert name.rpartition("/")[2] in section(PAGE, heading), f"{heading} does not name {name}"


def test_strategy_data_set_family_and_metric_work_together(project, tmp_path):
    reviews, model = write_reviews(tmp_path / "reviews"), tiny.write_tokenizer(tmp_path / "model")
    sizes = tiny.SIZES | {"vocab_size": 5 + len(tiny.WORDS), "max_position_embeddings": 64}
    transformers.ErnieConfig(**sizes).save_pretrained(model)
    command = [
        sys.executable, "importance_sampling_mnli.py", "--task_name", "reviews", "--data_dir", reviews,
        "--strategy", "by_length", "--num_examples", "8", "--config_name", model, "--tokenizer_name", model,
        "--do_train", "--do_eval", "--freeze_layers", "1", "--num_train_epochs", "1", "--max_seq_length", "32",
        "--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out",
    ]  # fmt: skip
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([str(w) for w in command], cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["task"] == "reviews" and results["selection"]["method"] == "by_length"
    assert results["train"]["padded_share"] == 0  # packed, which only families with a record are
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert list(config["id2label"].values()) == ["no", "maybe", "yes"]
    rows = [line.split("\t")[1:3] for line in (tmp_path / "out" / "predictions_dev.tsv").read_text().splitlines()[1:]]
    number = {"no": 0, "maybe": 1, "yes": 2}
    per_class = []
    for name in number:
        both = sum(gold == answer == name for gold, answer in rows)
        per_class.append(2 * both / max(1, sum(gold == name for gold, _ in rows) + sum(a == name for _, a in rows)))
    assert results["eval"]["dev"]["eval_macro_f1"] == pytest.approx(sum(per_class) / 3)
    assert f"reviews eval_macro_f1: {100 * sum(per_class) / 3:.5f}" in done.stdout


def test_an_encoder_family_computes_what_the_padded_pass_computes(monkeypatch):
    family = eval(recipe("## An encoder family"), vars(families))
    monkeypatch.setattr(families, "FAMILIES", (family, *families.FAMILIES))
    torch.manual_seed(0)
    sizes = tiny.SIZES | {"vocab_size": 60, "num_labels": 3, "initializer_range": 0.2}
    model = transformers.ErnieForSequenceClassification(transformers.ErnieConfig(**sizes)).eval()
    assert supports_packing(model) and isinstance(families.final_linear(model), torch.nn.Linear)
    lengths = [7, 3, 12]
    sequences = [torch.randint(5, 60, (length,)) for length in lengths]
    padded = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    with torch.no_grad():
        expected = model(padded, attention_mask=(padded > 0).long()).logits
        packed = torch.cat(sequences)
        bounds = torch.tensor([0, *lengths]).cumsum(0).int()
        found = packed_logits(model, packed, torch.zeros_like(packed), bounds, max(lengths))
    assert torch.allclose(found, expected, atol=1e-5) and expected.std() > 0.01


def test_a_challenge_set_in_a_report(tmp_path):
    (tmp_path / "negation.py").write_text(recipe("## A challenge set"))
    for strategy, accuracy in (("random", 0.6), ("diverse", 0.7)):
        for seed in range(3):
            run = write_run(tmp_path / "runs" / f"{strategy}{seed}", strategy, 0.1, seed, accuracy)
            found = {"with": accuracy - 0.2 + seed / 100, "without": 0.9}
            (run / "negation.json").write_text(json.dumps(found))
    command = [sys.executable, tmp_path / "negation.py", tmp_path / "runs", tmp_path / "report"]
    environment = os.environ | {"PYTHONPATH": str(tiny.ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "negation (with, without)" in done.stdout and "0.510 ± 0.010, 0.900 ± 0.000" in done.stdout
    assert "negation: with" in (tmp_path / "report" / "results.csv").read_text().splitlines()[0]
