"""One NLI checkpoint's answers on HANS: loading it with its class names, encoding HANS as training encoded MNLI,
collapsing three classes to two, and what the usual mistakes would have made of it.
"""

import dataclasses

import numpy as np
from transformers import AutoConfig

from hans import report
from hans.data import ENTAILMENT, NON_ENTAILMENT
from utils.data.examples import load_split
from utils.data.hub import from_pretrained
from utils.data.tasks import get_task
from utils.data.tokens import encode
from utils.errors import InputError
from utils.models import class_names as naming
from utils.models.classifier import load_classifier
from utils.models.inference import predict
from utils.selection.selection import random_ranking


def load_nli_classifier(args):
    """The checkpoint with its two or three NLI classes. Raises InputError where they cannot be known."""

    hub = {"cache_dir": args.cache_dir, "revision": args.model_revision}
    config = from_pretrained(AutoConfig, args.config_name or args.model_name_or_path, **hub)
    stated = naming.stated_names(config.id2label)
    classifier = load_classifier(
        naming.nli_labels(stated, config.num_labels),
        model_name_or_path=args.model_name_or_path,
        config_name=args.config_name,
        tokenizer_name=args.tokenizer_name,
        label_order=args.label_order,
        need_head=True,
        **hub,
    )
    if not classifier.named and args.label_order != "auto":
        raise InputError(
            f"{args.model_name_or_path}: {naming.unresolved_message(classifier.labels)} (--label_order auto --calibration_data_dir <an MNLI folder>)"
        )
    return classifier


class Evaluation:
    """One checkpoint's answers on HANS, and what they would be with the usual mistakes."""

    def __init__(self, args, classifier, processes, precision):
        self.args, self.classifier, self.processes, self.precision = args, classifier, processes, precision
        self.max_length = classifier.fitting_length(args.max_seq_length)

    def settle_names(self) -> str:
        """Find the meaning of unnamed outputs from labelled data, printing the score of every order."""

        if self.args.label_order != "auto":
            return "stated"
        examples = load_split(get_task("mnli"), "dev_matched", data_dir=self.args.calibration_data_dir)
        labels = self.classifier.labels
        rows = random_ranking(len(examples), 0)[:2000]
        gold = examples.labels[rows]
        if len(labels) == 2:
            gold = (gold != examples.label_names.index(naming.ENTAILMENT)).astype(int)  # labels = entailment, not
        # Outputs by number: whatever names the checkpoint states are set aside.
        self.classifier.columns = None
        outputs = self._predict(examples.texts, examples.fingerprint, rows, "checking class names").argmax(1)
        if self.processes.main:
            print(
                "accuracy on dev_matched by class order:",
                naming.format_orders(naming.score_orders(outputs, gold, labels)),
            )
        self.classifier.name_outputs(naming.detect_order(outputs, gold, labels, where=examples.source))
        return "auto"

    def logits(self, data, *, segments: bool = True):
        """float32 (n, C) by label, for every pair in file order; `segments` False feeds all-zero segment ids."""

        texts = (data.premises, data.hypotheses)
        return self._predict(texts, data.fingerprint, np.arange(len(data)), "HANS", segments=segments)

    def _predict(self, texts, fingerprint, rows, description, *, segments=True):

        with self.processes.main_first():
            encoded = encode(
                texts,
                self.classifier.tokenizer,
                fingerprint=fingerprint,
                max_length=self.max_length,
                segments=self.classifier.segments,
                cache_dir=self.args.cache_dir,
                overwrite_cache=self.args.overwrite_cache and self.processes.main,
                description="tokenising",
            )
        if not segments and encoded.token_type_ids is not None:
            encoded = dataclasses.replace(encoded, token_type_ids=np.zeros_like(encoded.token_type_ids))
        return predict(
            self.classifier,
            encoded,
            rows,
            processes=self.processes,
            precision=self.precision,
            tokens_per_micro_batch=self.args.tokens_per_micro_batch,
            description=description,
        )

    def two_way(self, logits, labels=None) -> list[str]:
        """Logits by label -> entailment / non-entailment: argmax (or sum) over the classes first, then merged."""

        at = (labels or self.classifier.labels).index(ENTAILMENT)
        if self.args.collapse == "argmax":
            entailed = logits.argmax(1) == at
        else:
            p = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
            entailed = 2 * p[:, at] > p.sum(1)
        return [ENTAILMENT if e else NON_ENTAILMENT for e in entailed]

    def output_names(self) -> list[str]:
        """The label of each model output, by output number."""
        labels, columns = self.classifier.labels, self.classifier.columns
        return list(labels) if columns is None else [labels[i] for i in columns.argsort().tolist()]

    def diagnose(self, data, logits) -> dict:
        """HANS results by way of evaluating: as it should be, and with each of the usual mistakes."""

        ways = {"right": report.score(data, self.two_way(logits))}
        if self.classifier.segments:
            without = self.logits(data, segments=False)
            ways["without segment ids"] = report.score(data, self.two_way(without))
        names = self.output_names()
        by_output = logits[:, [self.classifier.labels.index(name) for name in names]]
        orders = {f"class order of the {w}": naming.KNOWN_ORDERS[w] for w in ("hub data set", "old RoBERTa heads")}
        if len(names) == 2:
            orders = {"the two classes swapped": tuple(reversed(names))}
        for way, order in orders.items():
            same = tuple(names) == order
            ways[f"{way}{' (its own)' if same else ''}"] = report.score(
                data, self.two_way(np.ascontiguousarray(by_output), order)
            )
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
