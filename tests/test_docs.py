"""The documents: their code runs, their links lead somewhere, their flags exist, their tables are those of the study."""

import importlib
import re
import shlex

import numpy as np
import pytest
import torch
import transformers

from docs import make_strategies
from tests import documents, forked, tiny
from utils.data.examples import load_split
from utils.data.tasks import get_task
from utils.selection.selection import Selection
from utils.selection.strategies import STRATEGIES

SCRIPT = re.compile(r"(?:python3? (?:-m )?|&& python3? |nproc_per_node=\S+ |num_processes \d+ )([\w./]+)(.*)")


def test_the_readme_is_short():
    assert len((tiny.ROOT / "README.md").read_text().splitlines()) <= 250


@pytest.mark.parametrize("page", documents.DOCUMENTS, ids=lambda page: page.name)
def test_links_and_named_files_exist(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (page.parent / link).exists()]
    named = re.findall(r"`((?:utils|hans|tests|docs|study|benchmarks|demo)/[\w./-]*)`", text)
    missing += [name for name in named if not (tiny.ROOT / name).exists()]
    assert not missing


def test_the_page_of_strategies_is_up_to_date():
    assert make_strategies.PAGE.read_text() == make_strategies.page(), "run python -m docs.make_strategies"
    notes = make_strategies.read_json(make_strategies.NOTES)
    assert notes.keys() <= STRATEGIES.keys()


# ------------------------------------------------------------------------------------------------------------- commands
def printed_commands():
    """(script, words) of every command in the documents, indented ones and fenced ones."""
    for page in documents.DOCUMENTS:
        text = page.read_text().replace("\\\n", " ")
        text = re.sub(r"^```python\n.*?^```$", "", text, flags=re.M | re.S)
        for line in text.splitlines():
            found = SCRIPT.search(line) if "`" not in line else None
            if found:
                yield f"{page.name}: {line.strip()}", found[1], shlex.split(found[2].split("#")[0])


def help_of(script: str, capsys) -> str:
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    for flag in ("--help", "--help_all"):
        with pytest.raises(SystemExit):
            module.main([flag])
        text = capsys.readouterr().out
        if "--help_all" not in text:
            break
    return text


def test_every_printed_flag_exists(capsys, monkeypatch):
    monkeypatch.chdir(tiny.ROOT)
    helps, checked = {}, 0
    for where, script, words in printed_commands():
        name = "hans/evaluate_heur_output.py" if script == "evaluate_heur_output.py" else script
        if name in ("pytest", "docs.make_strategies", "docs.make_planted", "negation.py"):
            continue
        if name not in helps:
            helps[name] = help_of(name, capsys)
        for flag in (
            word for word in words if word.startswith("--") and word != "--keep_out"
        ):  # of the recipe's plugin
            assert re.search(rf"{flag}\b", helps[name]), f"{where}: {script} has no {flag}"
            checked += 1
    assert checked > 100 and len(helps) > 10


def test_the_worked_example_runs_line_by_line(tmp_path):
    (block,) = documents.code(documents.section("README.md", "## From fine-tuning to HANS"), "bash")
    first, *lines = documents.commands(block)
    assert first == "export OUT=$PWD/out/example"
    smaller = {"3000": "640", "500": "48"}  # fewer examples: the commands are what is tested
    for line in lines:
        python, *words = shlex.split(line.replace("$OUT", str(tmp_path)))
        assert python == "python"
        words = [smaller.get(word, word) if words[i - 1].startswith("--num_") else word for i, word in enumerate(words)]
        script = words.pop(0)
        if script == "-m":
            script = words.pop(0).replace(".", "/") + ".py"
        forked.run(script, *words, printed=tmp_path / "printed", env={"TIS_CACHE": str(tmp_path / "cache")})
    report = (tmp_path / "report" / "results.md").read_text()
    assert "| 33 | el2n |" in report and "| 100 | all |" in report and "HANS non-entailed" in report


# ------------------------------------------------------------------------------------------------- a Selection elsewhere
def test_a_selection_is_used_from_other_libraries(tmp_path, monkeypatch):
    """The Python blocks of docs/files.md, one after the other, in a folder with the files that they name."""
    import datasets

    monkeypatch.chdir(tmp_path)
    tiny.write_mnli(tmp_path / "glue" / "MNLI")
    examples = load_split(get_task("mnli"), "train", data_dir="glue/MNLI")
    rows = np.array([5, 3, 40, 3])
    saved = Selection(rows, [0.5, 1, 2, 1], len(examples), examples.fingerprint, provenance={"method": "mine"})
    saved.save("out/chosen/selection.npz")
    model = transformers.BertForSequenceClassification(tiny.config("bert", num_labels=3))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny.write_tokenizer(tmp_path / "tokenizer"))
    tokens = tokenizer(*examples.texts, padding="max_length", max_length=32, truncation=True)
    names = {
        "model": model,
        "arguments": transformers.TrainingArguments("out/trainer", max_steps=2, report_to="none", use_cpu=True),
        "train_dataset": datasets.Dataset.from_dict({**tokens, "labels": examples.labels.tolist()}),
    }
    for block in documents.code((tiny.ROOT / "docs" / "files.md").read_text(), "python"):
        exec(block, names)
        if "chosen" in names and "checked" not in names:
            names["checked"] = True
            assert list(names["rows"]) == rows.tolist() and names["about"]["n_total"] == 48
            assert names["chosen"]["sentence1"].tolist() == [examples.texts[0][i] for i in rows]
            assert names["chosen"]["weight"].tolist() == [0.5, 1, 2, 1]
    trainer = names["trainer"]
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    model.eval()
    with torch.no_grad():
        losses = [
            model(**{key: batch[key][i : i + 1] for key in batch if key != "weight"}).loss.item() for i in range(4)
        ]
        model.train()  # it has no dropout
        weighted = trainer.compute_loss(model, {key: value.to(model.device) for key, value in batch.items()})
    assert trainer.state.global_step == 2
    assert float(weighted) == pytest.approx(np.dot(saved.weights, losses) / 4, rel=1e-5)
    mine = Selection.load("out/mine/selection.npz")
    mine.check(examples)
    assert mine.indices.tolist() == list(range(0, 48, 3))
