"""HANS arithmetic and its report: accuracy by heuristic and gold label, by subcase, by template. One place for every
script; standard library only, but for the figure.
"""

from hans.data import ENTAILMENT, LABELS, NON_ENTAILMENT, HansSet
from utils import figure_style as style

WORDS = {  # abbreviations in the names of subcases
    "PP": "prepositional phrase",
    "obj": "object",
    "NP/S": "noun phrase or sentence",
    "NP/Z": "noun phrase or nothing",
    "subject/object": "subject and object",
}


def score(data: HansSet, predictions: list[str]) -> dict:
    """Accuracies of two-way `predictions`, in the order of `data`.

    `mean_non_entailed`, the mean over the heuristics' non-entailed cells, comes first: it is where the heuristics
    fail, while a constant answer gets half of everything right. Keys below keep the file's order of first appearance.
    """
    cells: dict[tuple, list[int]] = {}
    for i, guess in enumerate(predictions):
        right = int(guess == data.labels[i])
        keys = (
            ("heuristic", data.heuristics[i], data.labels[i]),
            ("subcase", data.subcases[i]),
            ("template", data.templates[i]),
        )
        for key in keys:
            cell = cells.setdefault(key, [0, 0])
            cell[0] += right
            cell[1] += 1
    accuracy = {key: right / total for key, (right, total) in cells.items()}
    heuristics = list(dict.fromkeys(data.heuristics))
    by_heuristic = {
        h: {label: accuracy[("heuristic", h, label)] for label in LABELS if ("heuristic", h, label) in accuracy}
        for h in heuristics
    }
    non_entailed = [cell[NON_ENTAILMENT] for cell in by_heuristic.values() if NON_ENTAILMENT in cell]
    entailed = [cell[ENTAILMENT] for cell in by_heuristic.values() if ENTAILMENT in cell]
    return {
        "mean_non_entailed": sum(non_entailed) / len(non_entailed) if non_entailed else None,
        "mean_entailed": sum(entailed) / len(entailed) if entailed else None,
        "accuracy": sum(g == y for g, y in zip(predictions, data.labels, strict=True)) / len(data),
        "n": len(data),
        "predicted_entailment": sum(g == ENTAILMENT for g in predictions) / len(data),
        "by_heuristic": by_heuristic,
        "by_subcase": {key[1]: value for key, value in accuracy.items() if key[0] == "subcase"},
        "by_template": {key[1]: value for key, value in accuracy.items() if key[0] == "template"},
        "subcase_labels": dict(zip(data.subcases, data.labels, strict=True)),
    }


def format_authors(results: dict) -> str:
    """The lines of the HANS authors' evaluate_heur_output.py, in their order and number format."""
    lines = []
    for title, label in (("entailed", ENTAILMENT), ("non-entailed", NON_ENTAILMENT)):
        lines.append(f"Heuristic {title} results:")
        lines += [f"{h}: {cell[label]}" for h, cell in results["by_heuristic"].items() if label in cell]
        lines.append("")
    for title, key in (("Subcase", "by_subcase"), ("Template", "by_template")):
        lines.append(f"{title} results:")
        lines += [f"{name}: {value}" for name, value in results[key].items()]
        lines.append("")
    return "\n".join(lines[:-1])


def format_report(results: dict, *, details: bool = True) -> str:
    """The three-level report for people; without `details` the first level alone."""
    mean = results["mean_non_entailed"]
    lines = [
        f"HANS non-entailed, mean over heuristics: {'-' if mean is None else f'{mean:.4f}'}",
        f"HANS accuracy over all {results['n']} pairs: {results['accuracy']:.4f} (a constant answer gets 0.5)",
        "",
        f"{'heuristic':<18}{'entailed':>10}{'non-entailed':>14}",
    ]
    for heuristic, cell in results["by_heuristic"].items():
        values = [f"{cell[label]:.4f}" if label in cell else "-" for label in LABELS]
        lines.append(f"{heuristic:<18}{values[0]:>10}{values[1]:>14}")
    if not details:
        return "\n".join(lines)
    lines += ["", f"{'subcase':<36}{'gold label':<16}accuracy"]
    for subcase, value in results["by_subcase"].items():
        lines.append(f"{subcase:<36}{results['subcase_labels'][subcase]:<16}{value:.4f}")
    lines += ["", f"{'template':<36}accuracy"]
    lines += [f"{template:<36}{value:.4f}" for template, value in results["by_template"].items()]
    return "\n".join(lines)


def warnings(results: dict) -> list[str]:
    """What in these numbers points to a mistake rather than to a model."""
    found = []
    share = results["predicted_entailment"]
    if share in (0.0, 1.0):
        answer = ENTAILMENT if share else NON_ENTAILMENT
        found.append(
            f"every pair was called {answer}: the model collapsed to one class, or its class names are in another order "
            "(check id2label, --label_order)"
        )
        return found
    extreme = [
        f"{heuristic} {label} {value:.0f}"
        for heuristic, cell in results["by_heuristic"].items()
        for label, value in cell.items()
        if value in (0.0, 1.0)
    ]
    if {cell[-1] for cell in extreme} == {"0", "1"}:
        found.append(
            f"cells of exactly 0 and 1 ({', '.join(extreme)}): expected of a mix-up of class names; check id2label, or "
            "run with --diagnose"
        )
    if results["accuracy"] < 0.4:
        found.append(
            f"accuracy {results['accuracy']:.3f} is far below the 0.5 of a constant answer: class names in another order do "
            "this; check id2label, or run with --diagnose"
        )
    mean_e, mean_n = results["mean_entailed"], results["mean_non_entailed"]
    if mean_e is not None and mean_n is not None and mean_e < 0.3 and mean_n > 0.7:
        found.append(
            f"entailed pairs {mean_e:.2f}, non-entailed {mean_n:.2f}: the reverse of every model known to follow the "
            "heuristics; dropped segment ids or another class order look like this, --diagnose tells them apart"
        )
    return found


def plot(results: dict, path, *, title: str = "") -> None:
    """PNG and PDF: accuracy by heuristic and gold label; by subcase."""
    subcases = sorted(
        results["by_subcase"],
        key=lambda name: ("lsc".find(name[:1]), LABELS.index(results["subcase_labels"][name]), name),
    )
    cells = [(h, label) for h, cell in results["by_heuristic"].items() for label in LABELS if label in cell]
    with style.new_figure(path, max(3, 0.16 * len(subcases) + 1)) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
        _marks(
            left,
            [f"{h.replace('_', ' ')},\n{label}" for h, label in cells],
            [results["by_heuristic"][h][label] for h, label in cells],
            [label for _, label in cells],
        )
        _marks(
            right,
            [subcase_words(name) for name in subcases],
            [results["by_subcase"][name] for name in subcases],
            [results["subcase_labels"][name] for name in subcases],
        )
        left.set_title("by heuristic and gold label")
        right.set_title("by subcase")
        figure.supxlabel("accuracy, %", fontsize=8)
        style.legend(figure, title=f"{title or 'HANS'}, {results['n']:,} pairs")


def _marks(axes, names: list[str], values: list[float], labels: list[str]) -> None:
    """A row each, from the top: a line from 0, a dot that shows where the value is 0 too, and the number."""
    axes.axvline(50, color="black", linestyle=":", linewidth=0.8, label="guessing")
    for row, (value, label) in enumerate(zip(values, labels, strict=True)):
        colour = style.LABELS[LABELS.index(label)]
        axes.plot([0, 100 * value], [row, row], color=colour, linewidth=2)
        axes.plot(100 * value, row, "o", color=colour, clip_on=False, label=f"gold label {label}")
        axes.annotate(f"{100 * value:.0f}", (100 * value, row), (4, 0), textcoords="offset points", va="center",
                      fontsize=style.SMALL, bbox=style.ON_WHITE)  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.set(xlim=(0, 108), ylim=(len(names) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def subcase_words(name: str) -> str:
    """`sn_PP_on_subject` -> `subsequence: prepositional phrase on subject`"""
    code, _, rest = name.partition("_")
    heuristic = {"l": "lexical overlap", "s": "subsequence", "c": "constituent"}.get(code[:1])
    words = " ".join(WORDS.get(word, word) for word in rest.split("_"))
    return f"{heuristic}: {words}" if heuristic and rest else name
