#!/usr/bin/env python3
"""Choose training examples by a strategy and fine-tune on the choice, in one command; or sample while training.

  python importance_sampling_mnli.py --strategy ambiguous --data_pct 0.3 --model_name_or_path albert-base-v1 \\
    --task_name MNLI --do_train --do_eval --data_dir $GLUE_DIR/MNLI --output_dir $OUT/ambiguous_30 --fp16
  python importance_sampling_mnli.py --online grad_norm --model_name_or_path albert-base-v1 --task_name MNLI \\
    --do_train --do_eval --data_dir $GLUE_DIR/MNLI --output_dir $OUT/grad_norm --fp16

The twin of subsampling_mnli.py: everything else is run_glue.py, same flags, same output. What the strategy needs and no
flag gives (embeddings, clusters, training dynamics) is made first, by a short proxy run or from --selector_model, and
kept in <output_dir>/selector/. --online schemes: grad_norm (Katharopoulos & Fleuret 2018), infobatch (Qin et al. 2024),
rho (Mindermann et al. 2022), rs2 (Okanovic et al. 2023).
"""

import dataclasses
import os

from utils.command_line import ArgumentParser, parse_args, setup_logging
from utils.errors import InputError, run_script
from utils.files import read_npz
from utils.flags import RunSettings, add_run_flags, name_data
from utils.selection.choosing import ChoiceSettings, InputFiles, add_choice_flags, choice_request, choose
from utils.selection.ingredients import InputMaker, MakerSettings
from utils.selection.strategies.registry import all_parameters
from utils.settings import add_flags, settings_from
from utils.training.schemes import SCHEMES, check_scheme


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    add_choice_flags(parser, argv)
    group = parser.add_argument_group("online importance sampling")
    group.add_argument(
        "--online", choices=SCHEMES, help="choose anew while training, instead of --strategy; rs2 reads --data_pct"
    )
    group.add_argument(
        "--irreducible_loss",
        metavar="FILE",
        help="rho: an .npz with irreducible_loss (n,) (default: cross-fitted from two proxy runs)",
    )
    group.add_argument(
        "--replacement", action="store_true", help="rs2: draw each epoch's subset independently of the others"
    )
    add_flags(parser, MakerSettings)
    add_run_flags(parser, fold=True)
    args = parse_args(parser, argv)
    name_data(args, "MNLI")
    check(parser, args)

    setup_logging(main_process=_first_process())
    (train_online if args.online else train_on_choice)(args)


def check(parser, args) -> None:
    """Refuse flags that do not go together."""
    if (args.strategy is None) == (args.online is None):
        parser.error("give exactly one of --strategy and --online")
    if not args.do_train:
        parser.error("give --do_train: this script trains on what it chooses")
    if args.online:
        check_scheme(
            args.online,
            data_pct=args.data_pct,
            num_examples=args.num_examples,
            max_steps=args.max_steps,
            num_train_epochs=args.num_train_epochs,
            record_dynamics=args.record_dynamics,
        )
        if args.dfr:
            parser.error(
                "--dfr trains nothing but the last layer, so nothing is drawn while training: leave out --online"
            )
    check_flags_are_read(args)
    if args.dry_run:
        parser.error("--dry_run: not for this script, whose proxy run is a run of its own; try run_glue.py --dry_run")


def check_flags_are_read(args) -> None:
    """Raise InputError for a flag that this way of choosing does not read."""
    choosing = {**_defaults(ChoiceSettings), **_defaults(InputFiles), "plugin": None, **dict.fromkeys(all_parameters())}
    del choosing["data_pct"]  # check_scheme knows which schemes read it
    makes = args.online == "rho" and not args.irreducible_loss
    for read, readers, defaults in (
        (args.strategy, "--strategy", choosing),
        (args.strategy or makes, "--strategy, and --online rho without --irreducible_loss", _defaults(MakerSettings)),
        (args.online == "rho", "--online rho", {"irreducible_loss": None}),
        (args.online == "rs2", "--online rs2", {"replacement": False}),
    ):
        given = [name for name, default in defaults.items() if getattr(args, name) != default]
        if given and not read:
            raise InputError(f"--{given[0]} is read by {readers} only; leave it out")


def _defaults(settings: type) -> dict:
    return {field.name: field.default for field in dataclasses.fields(settings)}


def train_on_choice(args) -> None:
    """Make what is missing, choose once, train. The subset card goes beside selection.npz."""
    from utils.selection.card import format_card, subset_card
    from utils.selection.strategies import NEEDS, get_strategy
    from utils.training import finetune

    settings, request = settings_from(RunSettings, args), choice_request(args)
    needs = [NEEDS[name] for name in get_strategy(args.strategy).needs]
    costs: dict = {}  # of what is made here, by its file, in epochs

    def pick(examples):
        maker = _maker(args, settings, examples, costs, request.files.paths())
        files = InputFiles(**maker.fill_in(needs, request.parameters))
        return choose(dataclasses.replace(request, files=files), examples, settings.drawing_seed)

    def describe(selection, examples):
        card = subset_card(selection, examples)
        print(format_card(card))
        return card

    choice = finetune.Choice(pick, describe, costs=costs)
    finetune.run(settings, script="importance_sampling_mnli.py", arguments=vars(args), choice=choice)


def train_online(args) -> None:
    """Train with batches that the scheme draws, and print how many backward passes it saved."""
    from utils.selection.selection import budget
    from utils.training import finetune
    from utils.training.online import make_batches

    settings, scheme = settings_from(RunSettings, args), SCHEMES[args.online]
    options: dict = {"replacement": args.replacement}
    costs: dict = {}

    def prepare(selection, examples):
        if scheme.subset:
            options["subset_size"] = budget(len(selection), data_pct=args.data_pct)
        if scheme.needs_irreducible_loss:
            options["irreducible_loss"] = irreducible_loss(args, settings, examples, costs)

    def make(selection, **plan):
        return make_batches(args.online, selection, **options, **plan)

    choice = finetune.Choice(prepare=prepare, make_batches=make, version=scheme.version, costs=costs)
    results = finetune.run(settings, script="importance_sampling_mnli.py", arguments=vars(args), choice=choice)
    if not _first_process():
        return
    t, epochs = results["train"], results["train"]["epochs"]
    full = epochs * results["selection"]["m"]
    print(
        f"{args.online}: {t['examples']} examples through the backward pass where {epochs:g} full epochs take {full:.0f} "
        f"({100 * (1 - t['examples'] / full):.1f} % saved), {t['probed']} more forward passes for choosing"
    )


def irreducible_loss(args, settings, examples, costs: dict):
    """Irreducible losses, float (n,), of the user's file or of one made here, whose cost is added to `costs`. Raises InputError
    for another number of rows, and for values that are not finite."""
    import numpy as np

    path = args.irreducible_loss or _maker(args, settings, examples, costs).irreducible_loss(examples)
    loss = read_npz(path, required=("irreducible_loss",))["irreducible_loss"]
    if loss.shape != (len(examples),):
        raise InputError(f"{path}: irreducible losses of {loss.shape} rows, but the data has {len(examples)}")
    if loss.dtype.kind != "f" or not np.isfinite(loss).all():
        raise InputError(
            f"{path}: the irreducible losses ({loss.dtype}) are not all finite numbers; make the file again"
        )
    return loss


def _maker(args, settings, examples, costs: dict, given=None) -> InputMaker:
    """The maker of inputs, which adds what its stages cost to `costs`."""
    making = settings_from(MakerSettings, args)
    facts = {"n": len(examples), "fingerprint": examples.fingerprint}
    return InputMaker(settings, making, seed=settings.drawing_seed, given=given, epochs=costs, **facts)


def _first_process() -> bool:
    """Whether this process is the first, by its environment: before and after the run there is no process group to ask."""
    return not int(os.environ.get("RANK", 0))


if __name__ == "__main__":
    run_script(main)
