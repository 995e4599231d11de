#!/usr/bin/env python3
"""Fine-tune on a random subset of the training data: the baseline that every other way of choosing has to beat.

  python subsampling_mnli.py --model_name_or_path albert-base-v1 --task_name MNLI --do_train --do_eval \\
    --data_dir $GLUE_DIR/MNLI --max_seq_length 128 --per_gpu_train_batch_size 512 --learning_rate 2e-5 \\
    --num_train_epochs 3.0 --output_dir $OUT/10_pct --fp16 --data_pct 0.1

--data_pct is a fraction. The subset depends on the data and --selection_seed alone, never on the model, and with one
seed the 10 % subset is inside the 20 % one. --strategy stratified keeps the share of each label (and of each genre,
where it is known). Everything else is run_glue.py: same flags, same output. selection.npz says which rows were used.
"""

from utils.command_line import ArgumentParser, parse_args
from utils.errors import run_script
from utils.flags import RunSettings, add_data_pct, add_run_flags, name_data
from utils.settings import settings_from


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    group = parser.add_argument_group("subset")
    add_data_pct(group)
    group.add_argument("--strategy", choices=("random", "stratified"), default="random", help="how rows are drawn")
    add_run_flags(parser, fold=True)
    args = parse_args(parser, argv)
    name_data(args)

    from utils.selection.selection import budget
    from utils.selection.strategies import Inputs, select
    from utils.training import finetune

    settings = settings_from(RunSettings, args)

    def choose(examples):
        m = budget(len(examples), data_pct=args.data_pct)
        return select(args.strategy, Inputs.of(examples), m, settings.drawing_seed)

    finetune.run(settings, script="subsampling_mnli.py", arguments=vars(args), choice=finetune.Choice(choose))


if __name__ == "__main__":
    run_script(main)
