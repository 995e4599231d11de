"""Training and inference speed, ours against the Hugging Face Trainer: same model, data, batch size, precision, steps.

  python -m benchmarks.throughput --batch_size 32 [--model bert-small] [--bf16|--fp16]
      [--data_dir DIR --tokenizer_name FOLDER] [--rounds 5] [--steps 4] [--output FILE.json]

Every measurement is a process of its own (so that peak memory is its own); the variants alternate, round by round, and
the table gives medians and the ratio to ours, round by round. Without --data_dir the token ids are random and the
lengths are drawn from MNLI's distribution (mean 39, median 36, 99th percentile 95, cut at 128).

Variants: ours; the Trainer padding everything to 128 (the default of the Hugging Face run_glue.py), padding to the
longest of each batch, and grouping by length. Inference: ours against a plain loop padded to 128. Useful FLOPs are
counted on real tokens alone; the ceiling is a large matrix product in the same precision, measured in the same run.
With --bf16 or --fp16 both sides run in it; the padded ones are timed in float32 as well. With --whole_rows, run_glue.py
and `benchmarks/trainer_script.py` are timed from start to end. The measurements are in `throughput_variants.py`.
"""

import json
import subprocess
import sys
import tempfile

from benchmarks.selection import machine
from benchmarks.throughput_variants import (
    FROZEN,
    HANS,
    IN_FLOAT32,
    INFERENCE,
    MODELS,
    ROOT,
    TRAINING,
    WHOLE,
    matrix_ceiling,
    measure,
)
from utils.command_line import ArgumentParser, parse_args, positive_int
from utils.errors import run_script
from utils.files import write_json

PATHS = ("output", "measure", "data_dir", "hans_dir", "tokenizer_name", "scratch")  # not recorded


def add_args(parser) -> None:
    parser.add_argument(
        "--model",
        choices=MODELS,
        default="bert-small",
        help="random weights; small: 6 layers x 384",
    )
    parser.add_argument("--batch_size", type=positive_int, default=32, help="examples per optimizer step")
    parser.add_argument("--steps", type=positive_int, default=4, help="steps timed, after one that is not")
    parser.add_argument("--rounds", type=positive_int, default=5, help="alternations")
    parser.add_argument("--inference_rows", type=positive_int, default=1024, help="examples per inference measurement")
    parser.add_argument("--data_dir", help="MNLI folder whose pairs are repeated to size")
    parser.add_argument("--tokenizer_name", help="tokenizer for --data_dir; a model for --whole_rows")
    parser.add_argument("--hans_dir", help="HANS evaluation set: with --tokenizer_name, time its evaluation too")
    parser.add_argument(
        "--whole_rows", type=positive_int, help="with --data_dir: time whole processes on so many pairs too"
    )
    parser.add_argument("--fp16", action="store_true", help="CUDA only")
    parser.add_argument("--bf16", action="store_true", help="CUDA, or a CPU that has it; both sides")
    parser.add_argument("--variants", nargs="+", help="which to run (default: all)")
    parser.add_argument("--output", metavar="FILE", help="write the measurements there as JSON")
    parser.add_argument("--measure", metavar="VARIANT", help="internal: measure one variant and print JSON")
    parser.add_argument("--scratch", help="internal: folder of that measurement")


# ---------------------------------------------------------------------------------------------------------- all together
def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__, prog="benchmarks.throughput")
    add_args(parser)
    args = parse_args(parser, argv)
    if not args.variants:
        frozen = () if args.model == "albert-base" else (FROZEN,)
        half = [f"{variant}{IN_FLOAT32}" for variant in (TRAINING[1], INFERENCE[1]) if args.bf16 or args.fp16]
        args.variants = [*TRAINING, *frozen, *INFERENCE, *half]
        args.variants += [*(HANS if args.hans_dir else ()), *(WHOLE if args.whole_rows else ())]
    if args.measure and args.measure.startswith("ceiling"):
        print(json.dumps({"flops_per_second": matrix_ceiling(args)}))
    elif args.measure:
        print(json.dumps(measure(args)))
    else:
        compare(args, list(sys.argv[1:] if argv is None else argv))


def compare(args, argv: list[str]) -> None:
    """Alternate the variants and print and save the table."""
    import statistics

    from tqdm import tqdm

    def child(variant):
        with tempfile.TemporaryDirectory() as scratch:
            words = [sys.executable, "-m", "benchmarks.throughput", *argv, "--measure", variant, "--scratch", scratch]
            done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            raise RuntimeError(f"{variant}: {done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    rounds = []
    for _ in tqdm(range(args.rounds), desc="rounds", disable=not sys.stderr.isatty()):
        found = {variant: child(variant) for variant in args.variants}
        ceilings = ["ceiling", *([f"ceiling{IN_FLOAT32}"] if args.bf16 or args.fp16 else [])]
        rounds.append(found | {name: child(name) for name in ceilings})
    ceiling = {name: statistics.median(r[name]["flops_per_second"] for r in rounds) for name in ceilings}
    table = []
    for variant in args.variants:
        own_precision = IN_FLOAT32 if variant.endswith(IN_FLOAT32) else ""
        groups = (INFERENCE, HANS, WHOLE, (*TRAINING, FROZEN))
        base = next(group[0] for group in groups if variant.removesuffix(IN_FLOAT32) in group)
        runs = [r[variant] for r in rounds]
        speeds = [run["examples"] / run["seconds"] for run in runs]
        row = {
            "variant": variant,
            "examples_per_second": statistics.median(speeds),
            "seconds": statistics.median(run["seconds"] for run in runs),
        }
        if variant not in WHOLE:
            useful = statistics.median(run["useful_flops_per_second"] for run in runs)
            row |= {
                "precision": runs[0]["precision"],
                "tokens_per_second": statistics.median(run["tokens"] / run["seconds"] for run in runs),
                "padded_share": runs[0]["padded_share"],
                "peak_memory_mb": statistics.median(run["peak_memory_mb"] for run in runs),
                "share_of_ceiling": useful / ceiling[f"ceiling{own_precision}"],
            }
        if base in args.variants:
            ratios = [r[base]["examples"] / r[base]["seconds"] / s for r, s in zip(rounds, speeds, strict=True)]
            row |= {"ours_is_faster_by": statistics.median(ratios), "ratios": ratios}
        table.append(row)
    print(
        f"{args.model}, batch {args.batch_size}; medians of {args.rounds} rounds; "
        + ", ".join(f"matrix {name} {value / 1e9:.0f} GFLOP/s" for name, value in ceiling.items())
    )
    print(
        f"{'':<34}{'examples/s':>12}{'tokens/s':>12}{'padding':>9}{'memory MB':>11}{'of ceiling':>12}{'ours faster by':>16}"
    )
    for row in table:
        padded = f"{100 * row['padded_share']:.1f} %" if row.get("padded_share") is not None else "-"
        faster = f"{row['ours_is_faster_by']:.2f}x" if "ours_is_faster_by" in row else "-"
        print(
            f"{row['variant']:<34}{row['examples_per_second']:>12.1f}{row.get('tokens_per_second', 0):>12.0f}{padded:>9}"
            f"{row.get('peak_memory_mb', 0):>11.0f}{100 * row.get('share_of_ceiling', 0):>10.1f} %{faster:>16}"
        )
    if args.output:
        arguments = {k: v for k, v in vars(args).items() if k not in PATHS}
        write_json(
            args.output,
            {
                "arguments": arguments,
                "machine": {**machine(), "gpu": gpu()},
                "ceiling_flops_per_second": ceiling,
                "table": table,
                "rounds": rounds,
            },
        )
        print(f"written to {args.output}")


def gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


if __name__ == "__main__":
    run_script(main)
