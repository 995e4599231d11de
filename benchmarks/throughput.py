"""Training and inference speed, ours against the Hugging Face Trainer: same model, data, batch size, precision, steps.

  python -m benchmarks.throughput --batch_size 32 [--model bert-small|albert-base] [--bf16|--fp16]
      [--data_dir DIR --tokenizer_name FOLDER] [--rounds 5] [--steps 4] [--output FILE.json]

Every measurement is a process of its own (so that peak memory is its own); the variants alternate, round by round, and
the table gives medians and the ratio to ours, round by round. Without --data_dir the token ids are random and the
lengths are drawn from MNLI's distribution (mean 39, median 36, 99th percentile 95, cut at 128).

Variants: ours; the Trainer padding everything to 128 (the default of the Hugging Face run_glue.py), padding to the
longest of each batch, and grouping by length. Inference: ours against a plain loop padded to 128. Useful FLOPs are
counted on real tokens alone; the ceiling is a large matrix product in the same precision, measured in the same run.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from utils.command_line import ArgumentParser, parse_args, positive_int
from utils.errors import run_script
from utils.files import write_json

MAX_LENGTH = 128
PATHS = ("output", "measure", "data_dir", "hans_dir", "tokenizer_name")  # not recorded
TRAINING = ("ours", "pad to 128", "dynamic padding", "grouped by length")
INFERENCE = ("ours: [CLS] extraction", "plain loop padded to 128")
HANS = ("ours: HANS", "plain loop on HANS padded to 128")


def add_args(parser) -> None:
    parser.add_argument(
        "--model",
        choices=("bert-small", "albert-base"),
        default="bert-small",
        help="BERT of 6 layers x 384, or ALBERT-base; random weights",
    )
    parser.add_argument("--batch_size", type=positive_int, default=32, help="examples per optimizer step")
    parser.add_argument("--steps", type=positive_int, default=4, help="steps timed, after one that is not")
    parser.add_argument("--rounds", type=positive_int, default=5, help="alternations")
    parser.add_argument("--inference_rows", type=positive_int, default=1024, help="examples per inference measurement")
    parser.add_argument("--data_dir", help="MNLI folder whose pairs are repeated to size")
    parser.add_argument("--tokenizer_name", help="tokenizer for --data_dir")
    parser.add_argument("--hans_dir", help="HANS evaluation set: with --tokenizer_name, time its evaluation too")
    parser.add_argument("--fp16", action="store_true", help="CUDA only")
    parser.add_argument("--bf16", action="store_true", help="CUDA only")
    parser.add_argument("--variants", nargs="+", help="which to run (default: all)")
    parser.add_argument("--output", metavar="FILE", help="write the measurements there as JSON")
    parser.add_argument("--measure", metavar="VARIANT", help="internal: measure one variant and print JSON")


# ------------------------------------------------------------------------------------------------- one measurement each
def build_model(args):
    """Random weights from a fixed seed."""
    import torch
    import transformers

    torch.manual_seed(0)
    if args.model == "albert-base":
        config = transformers.AlbertConfig(
            embedding_size=128,
            hidden_size=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            intermediate_size=3072,
            hidden_act="gelu_new",
            num_labels=3,
            hidden_dropout_prob=0,
            attention_probs_dropout_prob=0,
        )
    else:
        config = transformers.BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, num_labels=3
        )
    return transformers.AutoModelForSequenceClassification.from_config(config)


def build_data(args, vocab_size: int):
    """Encoded data of at least the rows needed: HANS pairs, MNLI pairs repeated to size, or generated ones."""
    import numpy as np

    from utils.data.tokenizer import load_tokenizer
    from utils.data.tokens import Encoded, encode

    rng = np.random.default_rng(0)
    n = max(args.batch_size * (args.steps + 1), args.inference_rows)
    if args.measure in HANS:
        from hans.data import load_hans

        hans = load_hans(args.hans_dir)
        rows = rng.permutation(len(hans))[: args.inference_rows]
        name, columns, labels = "benchmark hans", (hans.premises, hans.hypotheses), np.zeros(len(hans), dtype=np.int64)
    elif args.data_dir:
        from utils.data.examples import load_split
        from utils.data.tasks import get_task

        examples = load_split(get_task("mnli"), "train", data_dir=args.data_dir)
        rows = np.resize(rng.permutation(len(examples)), n)
        name, columns, labels = "benchmark", examples.texts, examples.labels
    else:
        lengths = np.clip(np.rint(rng.lognormal(3.58, 0.42, n)), 8, MAX_LENGTH).astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        types = np.concatenate([np.arange(k) >= 2 * k // 3 for k in lengths]).astype(np.uint8)
        ids = rng.integers(5, vocab_size, offsets[-1]).astype(np.int32)
        return Encoded(ids, types, offsets, rng.integers(0, 3, n), 0, "generated")
    return encode(
        tuple([column[i] for i in rows] for column in columns),
        load_tokenizer(args.tokenizer_name),
        fingerprint=f"{name} {len(rows)}",
        max_length=MAX_LENGTH,
        segments=True,
        labels=labels[rows],
    )


def precision_of(args, device):
    from utils.models.forward import choose_precision

    return choose_precision(device, fp16=args.fp16, bf16=args.bf16)


def measure(args) -> dict:
    """Run one variant in this process."""
    import resource

    import torch

    from utils.models import distributed

    processes = distributed.start()
    model = build_model(args)
    data = build_data(args, model.config.vocab_size)
    function = {
        "ours": measure_ours,
        "ours: [CLS] extraction": measure_extraction,
        "ours: HANS": measure_extraction,
        "plain loop padded to 128": measure_plain_loop,
        "plain loop on HANS padded to 128": measure_plain_loop,
    }.get(args.measure, measure_trainer)
    found = function(args, model, data, processes)
    cuda = processes.device.type == "cuda"
    found["peak_memory_mb"] = (
        torch.cuda.max_memory_allocated() / 2**20 if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    found["useful_flops_per_second"] = found.pop("flops") / found["seconds"]
    return found


def flops(model, lengths, *, training: bool) -> float:
    """Multiply-adds x 2 of the encoder on real tokens: dense layers, and attention quadratic in each length."""
    config = model.config
    dense = config.num_hidden_layers * (4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size)
    attention = config.num_hidden_layers * 2 * config.hidden_size
    forward = 2 * (dense * float(lengths.sum()) + attention * float((lengths.astype(float) ** 2).sum()))
    return 3 * forward if training else forward


def measure_ours(args, model, data, processes) -> dict:
    import torch

    from utils.flags import TrainingSettings
    from utils.models.classifier import Classifier
    from utils.selection.selection import Selection
    from utils.training.batches import UniformBatches
    from utils.training.loop import Hooks, train

    times, seen = [], []

    def on_step(done):
        if processes.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter())

    n = args.batch_size * (args.steps + 1)
    batches = UniformBatches(Selection.everything(n, "").take(range(n)), batch_size=args.batch_size, seed=0, epochs=1)
    hooks = Hooks(on_batch=[lambda step, rows, logits, losses: seen.append((step, rows))], on_step=[on_step])
    classifier = Classifier(model, None, ("a", "b", "c"))
    summary = train(
        classifier,
        data,
        batches,
        TrainingSettings(logging_steps=10**9),
        processes=processes,
        precision=precision_of(args, processes.device),
        hooks=hooks,
    )
    import numpy as np

    timed = np.concatenate([rows for step, rows in seen if step > 0])
    return result(args, data, timed, times[-1] - times[0], model, padded=summary["padded_share"], training=True)


def measure_trainer(args, model, data, processes) -> dict:
    import tempfile

    import numpy as np
    import torch
    import transformers

    pad_all, grouped = args.measure == "pad to 128", args.measure == "grouped by length"
    n = args.batch_size * (args.steps + 1)
    columns = [
        {
            "input_ids": data.input_ids[a:b].tolist(),
            "token_type_ids": data.token_type_ids[a:b].tolist(),
            "attention_mask": [1] * int(b - a),
            "labels": int(y),
        }
        for a, b, y in zip(data.offsets[:n], data.offsets[1 : n + 1], data.labels[:n], strict=True)
    ]
    order, computed, times = [], [], []

    def collate(rows):
        width = MAX_LENGTH if pad_all else max(len(row["input_ids"]) for row in rows)
        if processes.device.type == "cuda":
            width = -(-width // 8) * 8
        batch = {}
        for name in ("input_ids", "token_type_ids", "attention_mask"):
            padded = np.zeros((len(rows), width), dtype=np.int64)
            for i, row in enumerate(rows):
                padded[i, : len(row[name])] = row[name]
            batch[name] = torch.from_numpy(padded)
        batch["labels"] = torch.tensor([row["labels"] for row in rows])
        computed.append(batch["input_ids"].numel())
        order.append([len(row["input_ids"]) for row in rows])
        return batch

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_, **__):
            if processes.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        options = {"train_sampling_strategy": "group_by_length"} if grouped else {}
        arguments = transformers.TrainingArguments(
            folder, per_device_train_batch_size=args.batch_size, num_train_epochs=1, report_to="none", seed=0,
            save_strategy="no", logging_strategy="no", disable_tqdm=True, fp16=args.fp16, bf16=args.bf16,
            remove_unused_columns=False, **options,
        )  # fmt: skip
        trainer = transformers.Trainer(
            model, arguments, train_dataset=columns, data_collator=collate, callbacks=[Clock()]
        )
        trainer.train()
    # The loader may have collated one batch ahead; the first step is not timed.
    lengths = np.concatenate(order[1 : args.steps + 1])
    padded = 1 - lengths.sum() / sum(computed[1 : args.steps + 1])
    seconds = times[-1] - times[0]
    return {
        "examples": len(lengths),
        "tokens": int(lengths.sum()),
        "seconds": seconds,
        "padded_share": float(padded),
        "flops": flops(model, lengths, training=True),
    }


def measure_extraction(args, model, data, processes) -> dict:
    import numpy as np

    from utils.models.classifier import Classifier
    from utils.models.inference import infer

    classifier = Classifier(model, None, ("a", "b", "c"))
    rows = np.arange(args.inference_rows)
    options = {
        "processes": processes,
        "precision": precision_of(args, processes.device),
        "pooling": None if args.measure in HANS else "cls",
    }
    list(infer(classifier, data, rows[:64], **options))
    started = time.perf_counter()
    list(infer(classifier, data, rows, **options))
    return result(args, data, rows, time.perf_counter() - started, model, padded=None, training=False)


def measure_plain_loop(args, model, data, processes) -> dict:
    """What a user writes: batches of 32 in file order, padded to 128."""
    import numpy as np
    import torch

    model.to(processes.device).eval()
    precision = precision_of(args, processes.device)
    rows = np.arange(args.inference_rows)

    def run(rows):
        with torch.inference_mode(), precision.autocast():
            for start in range(0, len(rows), 32):
                part = rows[start : start + 32]
                ids, types, mask = (np.zeros((len(part), MAX_LENGTH), dtype=np.int64) for _ in range(3))
                for i, row in enumerate(part):
                    a, b = data.offsets[row], data.offsets[row + 1]
                    ids[i, : b - a], types[i, : b - a], mask[i, : b - a] = (
                        data.input_ids[a:b],
                        data.token_type_ids[a:b],
                        1,
                    )
                tensors = (torch.from_numpy(x).to(processes.device) for x in (ids, mask, types))
                hidden = model.base_model(*tensors).last_hidden_state
                hidden[:, 0].float().cpu()

    run(rows[:64])
    started = time.perf_counter()
    run(rows)
    padded = 1 - float(data.lengths[rows].sum()) / (len(rows) * MAX_LENGTH)
    return result(args, data, rows, time.perf_counter() - started, model, padded=padded, training=False)


def result(args, data, rows, seconds, model, *, padded, training) -> dict:
    lengths = data.lengths[rows]
    return {
        "examples": len(rows),
        "tokens": int(lengths.sum()),
        "seconds": seconds,
        "padded_share": padded,
        "flops": flops(model, lengths, training=training),
    }


def matrix_ceiling(args) -> float:
    """FLOP/s of a large matrix product in the precision in use."""
    import torch

    from utils.models import distributed

    device = distributed.start().device
    dtype = precision_of(args, device).dtype
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device, dtype=dtype)
    best = 0.0
    for _ in range(8):
        started = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * n**3 / (time.perf_counter() - started))
    return best


# ---------------------------------------------------------------------------------------------------------- all together
def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__, prog="benchmarks.throughput")
    add_args(parser)
    args = parse_args(parser, argv)
    args.variants = args.variants or [*TRAINING, *INFERENCE, *(HANS if args.hans_dir else ())]
    if args.measure == "ceiling":
        print(json.dumps({"flops_per_second": matrix_ceiling(args)}))
    elif args.measure:
        print(json.dumps(measure(args)))
    else:
        compare(args, list(sys.argv[1:] if argv is None else argv))


def compare(args, argv: list[str]) -> None:
    """Alternate the variants and print and save the table."""
    import statistics

    from tqdm import tqdm

    from utils.run_directory import versions

    def child(variant):
        words = [sys.executable, "-m", "benchmarks.throughput", *argv, "--measure", variant]
        done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).resolve().parent.parent)
        if done.returncode:
            raise RuntimeError(f"{variant}: {done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    rounds = []
    for _ in tqdm(range(args.rounds), desc="rounds", disable=not sys.stderr.isatty()):
        rounds.append({variant: child(variant) for variant in args.variants} | {"ceiling": child("ceiling")})
    ceiling = statistics.median(r["ceiling"]["flops_per_second"] for r in rounds)
    table = []
    for variant in args.variants:
        base = next(group[0] for group in (TRAINING, INFERENCE, HANS) if variant in group)
        runs = [r[variant] for r in rounds]
        speeds = [run["examples"] / run["seconds"] for run in runs]
        row = {
            "variant": variant,
            "examples_per_second": statistics.median(speeds),
            "tokens_per_second": statistics.median(run["tokens"] / run["seconds"] for run in runs),
            "padded_share": runs[0]["padded_share"],
            "peak_memory_mb": statistics.median(run["peak_memory_mb"] for run in runs),
            "share_of_ceiling": statistics.median(run["useful_flops_per_second"] for run in runs) / ceiling,
        }
        if base in args.variants:
            ratios = [r[base]["examples"] / r[base]["seconds"] / s for r, s in zip(rounds, speeds, strict=True)]
            row |= {"ours_is_faster_by": statistics.median(ratios), "ratios": ratios}
        table.append(row)
    print(
        f"{args.model}, batch {args.batch_size}; matrix ceiling {ceiling / 1e9:.0f} GFLOP/s; medians of {args.rounds} rounds"
    )
    print(
        f"{'':<34}{'examples/s':>12}{'tokens/s':>12}{'padding':>9}{'memory MB':>11}{'of ceiling':>12}{'ours faster by':>16}"
    )
    for row in table:
        padded = "-" if row["padded_share"] is None else f"{100 * row['padded_share']:.1f} %"
        faster = f"{row['ours_is_faster_by']:.2f}x" if "ours_is_faster_by" in row else "-"
        print(
            f"{row['variant']:<34}{row['examples_per_second']:>12.1f}{row['tokens_per_second']:>12.0f}{padded:>9}"
            f"{row['peak_memory_mb']:>11.0f}{100 * row['share_of_ceiling']:>10.1f} %{faster:>16}"
        )
    if args.output:
        arguments = {k: v for k, v in vars(args).items() if k not in PATHS}
        write_json(
            args.output,
            {
                "arguments": arguments,
                "versions": versions(),
                "machine": machine(),
                "ceiling_flops_per_second": ceiling,
                "table": table,
                "rounds": rounds,
            },
        )
        print(f"written to {args.output}")


def machine() -> dict:
    import os
    import platform

    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "gpu": gpu}


if __name__ == "__main__":
    run_script(main)
