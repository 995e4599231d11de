#!/usr/bin/env python3
"""Fine-tune and evaluate an encoder on one task, on all of its training data or on any selection of it.

  python run_glue.py --model_name_or_path albert-base-v1 --task_name MNLI --do_train --do_eval \\
    --data_dir $GLUE_DIR/MNLI --max_seq_length 128 --per_gpu_train_batch_size 512 --learning_rate 2e-5 \\
    --num_train_epochs 3.0 --output_dir $OUT --fp16

Reads the task's files, the hub, or files of your own (--train_file, --validation_file). Writes into --output_dir: the model
and tokenizer, eval_results_*.txt, predictions_*.tsv, log.jsonl, run.json and, last of all, results.json. If the run is
killed, the same command continues it. Several GPUs: torchrun --nproc_per_node=N run_glue.py ... All flags may come from one
JSON file: python run_glue.py flags.json.
"""

from utils.command_line import ArgumentParser, parse_args
from utils.errors import run_script
from utils.flags import RunSettings, add_run_flags, name_data
from utils.settings import settings_from


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    add_run_flags(parser)
    args = parse_args(parser, argv)
    name_data(args)

    from utils.training import finetune

    finetune.run(settings_from(RunSettings, args), script="run_glue.py", arguments=vars(args))


if __name__ == "__main__":
    run_script(main)
