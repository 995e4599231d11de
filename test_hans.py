#!/usr/bin/env python3
"""Evaluate an NLI checkpoint on HANS: did it learn inference, or the shortcut?

  python test_hans.py --model_name_or_path $OUT/saved_models --do_eval --data_dir $DATA/hans --max_seq_length 128 \\
    --output_dir $OUT/hans --fp16 --task_name HANS --per_gpu_eval_batch_size 4096

Pairs are encoded exactly as training encoded MNLI, classes are found by name (id2label, or --label_order), the argmax
over the model's classes is taken first, and whatever is not entailment then counts as non-entailment. Writes
hans_predictions.txt (for hans/evaluate_heur_output.py), hans_results.json, eval_results_hans.txt, hans_report.txt (by
heuristic, subcase and template; --verbose prints it), hans.png and hans.pdf.
--diagnose also evaluates the checkpoint with the usual mistakes, so that a strange table can be traced to one.
"""

from pathlib import Path

from utils.command_line import ArgumentParser, parse_args, positive_int, setup_logging
from utils.errors import run_script
from utils.files import folder_lock, refuse_finished, write_json, write_text
from utils.flags import DeviceSettings, InferenceSettings, ModelSettings, TrackerSettings
from utils.settings import add_flags, add_no_ops, settings_from

RESULTS = "hans_results.json"  # written last
FIGURES, REPORT, PLOT, PAPER = "eval_results_hans.txt", "hans_report.txt", "hans.png", "hans.pdf"


def add_args(parser) -> None:
    group = parser.add_argument_group("HANS")
    group.add_argument(
        "--data_dir",
        help="folder or file of the evaluation set: heuristics_evaluation_set.txt or .jsonl, plain, .xz or .gz (default: jhu-cogsci/hans from the hub)",
    )
    group.add_argument("--task_name", default="HANS", help="HANS, in any letter case")
    group.add_argument("--do_eval", action="store_true", help="accepted for compatibility: there is nothing else to do")
    group.add_argument(
        "--max_seq_length", "--max_seq_len", type=positive_int, default=128, help="tokens per pair, as in training"
    )
    group.add_argument(
        "--collapse",
        choices=("argmax", "sum"),
        default="argmax",
        help="argmax: the best of the model's classes, then merged, as the authors do; sum: p(entailment) against the sum of the others",
    )
    group.add_argument(
        "--calibration_data_dir", metavar="DIR", help="MNLI folder whose dev_matched.tsv settles --label_order auto"
    )
    group.add_argument(
        "--diagnose",
        action="store_true",
        help="print one table of accuracies: evaluated correctly, without segment ids, with the class orders of the hub and of old RoBERTa heads",
    )
    group.add_argument(
        "--max_per_subcase", type=positive_int, help="evaluate on a seeded sample of this many pairs of each subcase"
    )
    group.add_argument("--verbose", action="store_true", help="print the whole report: subcases and templates too")
    group.add_argument("--quiet", action="store_true", help="accepted for compatibility: the summary is printed anyway")
    group.add_argument("--output_dir", required=True, help="where the predictions, results and the figure go")
    group.add_argument("--overwrite_output_dir", action="store_true", help="replace the HANS results there")
    group.add_argument("--overwrite_cache", action="store_true", help="tokenise again although the cache has it")


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    add_args(parser)
    for settings in (ModelSettings, DeviceSettings, TrackerSettings):
        add_flags(parser, settings)
    add_no_ops(parser)
    args = parse_args(parser, argv)
    if args.task_name.lower() != "hans":
        parser.error(f"--task_name {args.task_name}: this script evaluates HANS; run_glue.py evaluates GLUE tasks")
    if not args.model_name_or_path:
        parser.error("give --model_name_or_path: a checkpoint fine-tuned on NLI")
    if args.label_order == "auto" and not args.calibration_data_dir:
        parser.error("--label_order auto needs labelled NLI data: --calibration_data_dir <an MNLI folder>")

    from utils.models import distributed
    from utils.training.trackers import chosen_trackers

    trackers = chosen_trackers(settings_from(TrackerSettings, args))
    processes = distributed.start(use_cpu=args.use_cpu)
    setup_logging(main_process=processes.main)
    with folder_lock(args.output_dir, enabled=processes.main):
        refuse_finished(args.output_dir, RESULTS, args.overwrite_output_dir)
        _evaluate(args, Path(args.output_dir), processes, trackers)


def _evaluate(args, out: Path, processes, trackers: list[str]) -> None:
    """Evaluate the checkpoint, write the files, print the report."""
    from hans import report
    from hans.data import PREDICTIONS, load_hans
    from hans.evaluation import Evaluation, format_diagnosis, open_nli_session
    from utils.models import distributed
    from utils.training.trackers import open_trackers

    data = load_hans(args.data_dir, cache_dir=args.cache_dir)
    if args.max_per_subcase:
        data = data.sample(args.max_per_subcase)
    evaluation = Evaluation(open_nli_session(settings_from(InferenceSettings, args), processes), args.collapse)
    if args.label_order == "auto":
        evaluation.settle_names(args.calibration_data_dir)
    logits = evaluation.logits(data)
    predictions = evaluation.two_way(logits)
    results = report.score(data, predictions)
    warnings = report.warnings(results)
    diagnosis = evaluation.diagnose(data, logits) if args.diagnose else None
    distributed.stop()
    if not processes.main:
        return
    results |= {
        "collapse": args.collapse,
        "model": args.model_name_or_path,
        "class_names": list(evaluation.output_names()),
        "label_order": "auto" if args.label_order == "auto" else "stated",
        "data": {
            "source": data.source,
            "n": len(data),
            "max_per_subcase": args.max_per_subcase,
            "fingerprint": data.fingerprint,
        },
        "files": [PREDICTIONS, FIGURES, REPORT, PLOT, PAPER],
        "warnings": warnings,
        "diagnosis": diagnosis,
    }
    lines = [f"{pair_id},{label}" for pair_id, label in zip(data.pair_ids, predictions, strict=True)]
    write_text(out / PREDICTIONS, "\n".join(["pairID,gold_label", *lines]) + "\n")
    flat = {key: results[key] for key in ("mean_non_entailed", "mean_entailed", "accuracy", "n")}
    flat |= {f"{h}_{label}": value for h, cell in results["by_heuristic"].items() for label, value in cell.items()}
    write_text(out / FIGURES, "".join(f"{key} = {value}\n" for key, value in flat.items()))
    write_text(out / REPORT, report.format_report(results) + "\n")
    report.plot(results, out / PLOT, title=f"HANS: {Path(args.model_name_or_path).name}")
    with open_trackers(trackers, settings_from(TrackerSettings, args), out, vars(args)) as opened:
        opened.log(0, {f"hans/{key}": value for key, value in flat.items() if value is not None})
        opened.finish(0, results)
    write_json(out / RESULTS, results)
    print(report.format_report(results, details=args.verbose))
    if diagnosis:
        print("\n" + format_diagnosis(diagnosis))
    for warning in warnings:
        print(f"\nWARNING: {warning}")
    print(f"\neverything is in {out}")


if __name__ == "__main__":
    run_script(main)
