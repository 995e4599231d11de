"""One NLI checkpoint's answers on HANS: loading it with its class names, encoding HANS as training encoded MNLI,
merging three classes into two, and what the usual mistakes would have made of it.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from hans import report
from hans.data import ENTAILMENT, NON_ENTAILMENT
from utils.data import class_names as naming
from utils.data.examples import load_split
from utils.data.hub import load_config
from utils.data.logits import softmax
from utils.data.tasks import get_task
from utils.errors import InputError
from utils.flags import InferenceSettings
from utils.models.distributed import Processes
from utils.models.session import Session, open_session
from utils.selection.selection import random_ranking

NAMING_ROWS = 2000  # labelled examples that show what unnamed outputs mean


def open_nli_session(settings: InferenceSettings, processes: Processes) -> Session:
    """The checkpoint with its two or three NLI classes. Raises InputError where they cannot be known."""
    source = settings.config_name or settings.model_name_or_path
    config = load_config(source, settings)
    stated = None if settings.label_order else naming.stated_names(config.id2label)  # the user knows better
    labels = naming.nli_labels(stated, config.num_labels)
    session = open_session(labels, settings, processes, need_head=True)
    if not session.classifier.named and settings.label_order != "auto":
        raise InputError(
            f"{settings.model_name_or_path}: {naming.unresolved_message(labels)} (--label_order auto "
            "--calibration_data_dir <an MNLI folder>)"
        )
    return session


@dataclass(frozen=True)
class Evaluation:
    """One checkpoint's answers on HANS, and what they would be with the usual mistakes.

    collapse: "argmax" takes the best of the model's classes, then merges neutral and contradiction; "sum" compares the
    probability of entailment with the sum of the others.
    """

    session: Session
    collapse: str = "argmax"

    @property
    def labels(self) -> tuple[str, ...]:
        return self.session.classifier.labels

    def settle_names(self, calibration_data_dir) -> None:
        """Find the meaning of the outputs from labelled data, whatever names the checkpoint states; prints the accuracy
        under every order. Raises InputError where no order wins clearly."""
        examples = load_split(get_task("mnli"), "dev_matched", data_dir=calibration_data_dir)
        rows = random_ranking(len(examples), 0)[:NAMING_ROWS]
        gold = examples.labels[rows]
        if len(self.labels) == 2:
            gold = (gold != examples.label_names.index(naming.ENTAILMENT)).astype(int)  # labels = entailment, not
        self.session.classifier.columns = None  # outputs by number
        data = self.session.encode(examples)
        outputs = self.session.predict(data, rows, description="checking class names").argmax(1)
        if self.session.processes.main:
            orders = naming.format_orders(naming.score_orders(outputs, gold, self.labels))
            print("accuracy on dev_matched by class order:", orders)
        self.session.classifier.name_outputs(naming.detect_order(outputs, gold, self.labels, where=examples.source))

    def logits(self, data, *, segments: bool = True) -> np.ndarray:
        """float32 (n, C) by label, for every pair in file order; `segments` False feeds all-zero segment ids."""
        encoded = self.session.encode_texts((data.premises, data.hypotheses), fingerprint=data.fingerprint)
        if not segments and encoded.token_type_ids is not None:
            encoded = dataclasses.replace(encoded, token_type_ids=np.zeros_like(encoded.token_type_ids))
        return self.session.predict(encoded, description="HANS")

    def two_way(self, logits, labels=None) -> list[str]:
        """Logits by label -> entailment / non-entailment, merged as `collapse` says."""
        at = (labels or self.labels).index(ENTAILMENT)
        if self.collapse == "argmax":
            entailed = logits.argmax(1) == at
        else:
            entailed = 2 * softmax(logits.astype(np.float64))[:, at] > 1
        return [ENTAILMENT if e else NON_ENTAILMENT for e in entailed]

    def output_names(self) -> list[str]:
        """The label of each model output, by output number."""
        columns = self.session.classifier.columns
        return list(self.labels) if columns is None else [self.labels[i] for i in columns.argsort().tolist()]

    def diagnose(self, data, logits) -> dict:
        """HANS results by way of evaluating: as it should be, and with each of the usual mistakes."""
        ways = {"right": report.score(data, self.two_way(logits))}
        if self.session.classifier.segments:
            without = self.logits(data, segments=False)
            ways["without segment ids"] = report.score(data, self.two_way(without))
        names = self.output_names()
        by_output = logits[:, [self.labels.index(name) for name in names]]
        orders = {f"class order of the {w}": naming.KNOWN_ORDERS[w] for w in ("hub data set", "old RoBERTa heads")}
        if len(names) == 2:
            orders = {"the two classes swapped": tuple(reversed(names))}
        for way, order in orders.items():
            same = " (its own)" if tuple(names) == order else ""
            ways[f"{way}{same}"] = report.score(data, self.two_way(np.ascontiguousarray(by_output), order))
        keep = ("mean_non_entailed", "mean_entailed", "accuracy", "by_heuristic")
        return {way: {key: results[key] for key in keep} for way, results in ways.items()}


def format_diagnosis(diagnosis: dict) -> str:
    """One row per way of evaluating: entailed and non-entailed accuracy per heuristic."""
    heuristics = list(next(iter(diagnosis.values()))["by_heuristic"])
    header = f"{'evaluated':<40}" + "".join(f"{h:>24}" for h in heuristics)
    rows = [header, f"{'':<40}" + f"{'entailed / non-entailed':>24}" * len(heuristics)]
    for way, results in diagnosis.items():
        cells = [" / ".join(f"{value:.4f}" for value in results["by_heuristic"][h].values()) for h in heuristics]
        rows.append(f"{way:<40}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(rows)
