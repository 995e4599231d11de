"""Data sets, as text and as tokens. This folder owns the records of the tasks, the reading of files and of the hub, the
files of predictions, the cache of tokens, metrics on whole arrays, word overlap, and what the project asks of a challenge
set. It knows no model.

Others use `sources.open_data`, `tasks.get_task`, `examples.load_split` and its `Examples`, `tables.write_table`,
`grouped.read_grouped`, `tokens.encode` and its `Encoded`,
`tokenizer.load_tokenizer`, `metrics.compute_metrics`, `predictions.read_predictions`, `overlap.supports_heuristics`,
`class_names` for matching a model's outputs to labels, the functions of logits in `logits`, `hub.from_pretrained`, `hub.load_config`, and the records in `challenge`.
"""
