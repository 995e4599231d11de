"""One measurement of `benchmarks.throughput` each: ours, the Hugging Face Trainer, plain loops, and the matrix ceiling."""

import subprocess
import sys
import time
from pathlib import Path

MAX_LENGTH = 128
ROOT = Path(__file__).resolve().parent.parent
TRAINING = ("ours", "pad to 128", "dynamic padding", "grouped by length")
INFERENCE = ("ours: [CLS] extraction", "plain loop padded to 128")
HANS = ("ours: HANS", "plain loop on HANS padded to 128")
WHOLE = ("ours: whole process", "Trainer: whole process")
FROZEN = "ours: lower 2/3 frozen, cached"
TRAINER_SCRIPT = "benchmarks/trainer_script.py"
IN_FLOAT32 = " (float32)"  # after a variant's name: it stays in float32 where the others are in half precision


SMALL = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
MODELS = {  # what transformers' config class of that type is given
    "bert-small": ("bert", SMALL),
    "roberta-small": ("roberta", SMALL | {"max_position_embeddings": 514, "type_vocab_size": 2}),
    "electra-small": ("electra", SMALL | {"embedding_size": 128}),
    "distilbert-small": ("distilbert", {"dim": 384, "n_layers": 6, "n_heads": 12, "hidden_dim": 1536}),
    "albert-base": (
        "albert",
        {"embedding_size": 128, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
        | {
            "intermediate_size": 3072,
            "hidden_act": "gelu_new",
            "hidden_dropout_prob": 0,
            "attention_probs_dropout_prob": 0,
        },
    ),
}


def build_model(args):
    """Random weights from a fixed seed."""
    import torch
    import transformers

    torch.manual_seed(0)
    kind, sizes = MODELS[args.model]
    config = transformers.AutoConfig.for_model(kind, num_labels=3, **sizes)
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
        types = types if MODELS[args.model][0] in ("bert", "albert", "electra") else None
        return Encoded(ids, types, offsets, rng.integers(0, 3, n), 0, "generated")
    return encode(
        tuple([column[i] for i in rows] for column in columns),
        load_tokenizer(args.tokenizer_name),
        fingerprint=f"{name} {len(rows)}",
        max_length=MAX_LENGTH,
        segments=MODELS[args.model][0] in ("bert", "albert", "electra"),
        labels=labels[rows],
    )


def precision_of(args, device):
    from utils.models.forward import choose_precision

    half = not args.measure.endswith(IN_FLOAT32)
    return choose_precision(device, fp16=args.fp16 and half, bf16=args.bf16 and half)


def measure(args) -> dict:
    """Run one variant in this process."""
    import resource

    import torch

    from utils.models import distributed

    if args.measure in WHOLE:
        return measure_whole(args)
    processes = distributed.start()
    model = build_model(args)
    data = build_data(args, model.config.vocab_size)
    function = {
        "ours": measure_ours,
        FROZEN: measure_ours,
        "ours: [CLS] extraction": measure_extraction,
        "ours: HANS": measure_extraction,
        "plain loop padded to 128": measure_plain_loop,
        "plain loop on HANS padded to 128": measure_plain_loop,
    }.get(args.measure.removesuffix(IN_FLOAT32), measure_trainer)
    found = function(args, model, data, processes)
    cuda = processes.device.type == "cuda"
    found["peak_memory_mb"] = (
        torch.cuda.max_memory_allocated() / 2**20 if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    found["precision"] = precision_of(args, processes.device).name
    found["useful_flops_per_second"] = found.pop("flops") / found["seconds"]
    return found


def flops(model, lengths, *, training: bool) -> float:
    """Multiply-adds x 2 of the encoder on real tokens, as far as the logits need them: dense layers, and attention quadratic
    in each length. Of the last layer's feed-forward network they need the first token of each sequence alone."""
    config = model.config
    inner = getattr(config, "intermediate_size", None) or config.hidden_dim  # DistilBERT's name
    layers, feed_forward = config.num_hidden_layers, 2 * config.hidden_size * inner
    dense = layers * 4 * config.hidden_size**2 + (layers - 1) * feed_forward
    attention = layers * 2 * config.hidden_size
    forward = 2 * (dense * float(lengths.sum()) + attention * float((lengths.astype(float) ** 2).sum()))
    forward += 2 * feed_forward * len(lengths)
    return 3 * forward if training else forward


def measure_ours(args, model, data, processes) -> dict:
    import numpy as np
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
    precision, frozen = precision_of(args, processes.device), None
    if args.measure == FROZEN:  # computing the states is not timed: they serve every epoch
        from utils.flags import InferenceSettings
        from utils.models.families import freeze_lower_layers
        from utils.models.frozen import FrozenOutputs
        from utils.models.session import Session

        count = 2 * model.config.num_hidden_layers // 3
        freeze_lower_layers(model, count)
        session = Session(classifier, processes, precision, InferenceSettings(cache_dir=args.scratch))
        frozen = FrozenOutputs(session, data, np.arange(n), count)
    summary = train(
        classifier,
        data,
        batches,
        TrainingSettings(logging_steps=10**9),
        processes=processes,
        precision=precision,
        hooks=hooks,
        frozen=frozen,
    )
    timed = np.concatenate([rows for step, rows in seen if step > 0])
    return result(args, data, timed, times[-1] - times[0], model, padded=summary["padded_share"], training=True)


def measure_trainer(args, model, data, processes) -> dict:
    import numpy as np
    import torch
    import transformers

    pad_all, grouped = args.measure.startswith("pad to 128"), args.measure.startswith("grouped")
    n = args.batch_size * (args.steps + 1)
    names = ("input_ids", *(["token_type_ids"] if data.token_type_ids is not None else []), "attention_mask")
    columns = [
        {"input_ids": data.input_ids[a:b].tolist(), "attention_mask": [1] * int(b - a), "labels": int(y)}
        | ({"token_type_ids": data.token_type_ids[a:b].tolist()} if len(names) == 3 else {})
        for a, b, y in zip(data.offsets[:n], data.offsets[1 : n + 1], data.labels[:n], strict=True)
    ]
    order, computed, times = [], [], []

    def collate(rows):
        width = MAX_LENGTH if pad_all else max(len(row["input_ids"]) for row in rows)
        if processes.device.type == "cuda":
            width = -(-width // 8) * 8
        batch = {}
        for name in names:
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

    options = {"train_sampling_strategy": "group_by_length"} if grouped else {}
    half = {} if args.measure.endswith(IN_FLOAT32) else {"fp16": args.fp16, "bf16": args.bf16}
    arguments = transformers.TrainingArguments(
        args.scratch, per_device_train_batch_size=args.batch_size, num_train_epochs=1, report_to="none", seed=0,
        save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=processes.device.type == "cpu",
        remove_unused_columns=False, **half, **options,
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=columns, data_collator=collate, callbacks=[Clock()])
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
                    ids[i, : b - a], mask[i, : b - a] = data.input_ids[a:b], 1
                    if data.token_type_ids is not None:
                        types[i, : b - a] = data.token_type_ids[a:b]
                ids, mask, types = (torch.from_numpy(x).to(processes.device) for x in (ids, mask, types))
                segments = {} if data.token_type_ids is None else {"token_type_ids": types}
                hidden = model.base_model(ids, attention_mask=mask, **segments).last_hidden_state
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


def measure_whole(args) -> dict:
    """A process from its start to its end: read, encode, train, evaluate both dev splits, save. The parent times it."""
    import os

    settings = {
        "--task_name": "mnli", "--data_dir": args.data_dir, "--model_name_or_path": args.tokenizer_name,
        "--max_train_samples": args.whole_rows, "--max_eval_samples": args.whole_rows // 4, "--num_train_epochs": 1,
        "--per_device_train_batch_size": args.batch_size, "--output_dir": Path(args.scratch) / "run",
        "--cache_dir": args.scratch,
    }  # fmt: skip
    words = [str(word) for pair in settings.items() for word in pair]
    words += [f"--{name}" for name in ("bf16", "fp16") if getattr(args, name)]
    script = ["run_glue.py", "--do_train", "--do_eval"] if args.measure.startswith("ours") else [TRAINER_SCRIPT]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *script, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return {"examples": args.whole_rows, "seconds": time.perf_counter() - started}
