"""What `benchmarks.throughput` holds run_glue.py against: the Hugging Face Trainer on MNLI as their script runs it, from
reading to saving. Padded to 128, rows in file order; flags as run_glue.py spells them."""

import argparse
import csv
from pathlib import Path

LABELS = ("contradiction", "entailment", "neutral")


def read(path: Path, tokenizer, rows: int) -> list[dict]:
    """The first `rows` pairs, tokenised."""
    with open(path, encoding="utf-8", newline="") as file:
        lines = [line for line, _ in zip(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE), range(rows))]  # noqa: B905
    texts = [[line[name] for line in lines] for name in ("sentence1", "sentence2")]
    tokens = tokenizer(*texts, truncation=True, max_length=128, padding="max_length")
    columns = [*tokens, "labels"]
    labels = [LABELS.index(line["gold_label"]) for line in lines]
    return [dict(zip(columns, row, strict=True)) for row in zip(*tokens.values(), labels, strict=True)]


def main() -> None:
    import transformers

    parser = argparse.ArgumentParser()
    for name in ("task_name", "data_dir", "model_name_or_path", "output_dir", "cache_dir"):
        parser.add_argument(f"--{name}")
    for name in ("max_train_samples", "max_eval_samples", "num_train_epochs", "per_device_train_batch_size"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("fp16", "bf16"):
        parser.add_argument(f"--{name}", action="store_true")
    args = parser.parse_args()
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model_name_or_path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(args.model_name_or_path, num_labels=3)
    folder = Path(args.data_dir)
    train = read(folder / "train.tsv", tokenizer, args.max_train_samples)
    arguments = transformers.TrainingArguments(
        args.output_dir, per_device_train_batch_size=args.per_device_train_batch_size, report_to="none",
        num_train_epochs=args.num_train_epochs, disable_tqdm=True, fp16=args.fp16, bf16=args.bf16, use_cpu=args.bf16,
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=train, processing_class=tokenizer)
    trainer.train()
    for split in ("dev_matched", "dev_mismatched"):
        trainer.evaluate(read(folder / f"{split}.tsv", tokenizer, args.max_eval_samples))
    trainer.save_model()


if __name__ == "__main__":
    main()
