"""The campaign of faults: each round copies a small world of files, does one fault to it and runs a script on it.

  make faults ROUNDS=1000
  python -m tests.faults.campaign --rounds 300 --seed 1 --kinds damage kill --output faults.json
  python -m tests.faults.campaign --seed 1 --only 17        # one round again

Kinds of faults: `damage` (one file that the script reads), `flags` (one unusable value), `kill` (kill -9, then the same
command again), `two` (two processes in one folder), `disk` (files limited in size), `hostile` (pickles that would create
a file when they are loaded). docs/reliability.md explains the outcomes. The exit status is 1 where a bad one is found.
"""

import io
import json
import pickle
import random
import re
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

from tests import forked
from tests.faults.world import HANG, STAGES, Stage, World
from utils.command_line import ArgumentParser, non_negative_int, parse_args, positive_int, seed_number
from utils.errors import run_script
from utils.files import file_sha256, write_json

BAD = ("traceback", "unclear", "silent", "hang", "lost", "executed")
LOG_LINE = re.compile(r"\d\d:\d\d:\d\d (INFO|WARNING) |.*it/s\]|.*\?it|\s*$")
OF_A_STAGE = "its own message is above"  # a script says so of another that it started
# Text and weights carry no checksum: a changed letter or number may be another valid input, which nobody can notice.
FREE = (".tsv", ".txt", ".json", ".csv", ".safetensors")


# --------------------------------------------------------------------------------------------------------------- outcomes
def judge(done: forked.Finished, stage: Stage) -> str:
    """`ended` for status 0, `refused` for one clear line, `traceback` or `unclear` for everything else."""
    if done.status == 0:
        return "ended"
    lines = [line for line in re.split(r"[\n\r]", done.stderr) if not LOG_LINE.match(line)]
    name = Path(stage.script).name
    names = (f"{name}: ", f"{stage.script.removesuffix('.py').replace('/', '.')}: ")
    if len(lines) == 2 and OF_A_STAGE in lines[1] and re.match(r"\w+\.py: ", lines[0]):
        lines = lines[1:]
    one = len(lines) == 1 and lines[0].startswith(names)
    refused = one and (done.status == 2 or (done.status == 1 and ": failed: " in lines[0]))
    if refused:
        return "refused"
    return "traceback" if "Traceback" in done.stderr or done.status < 0 else "unclear"


def compare(world: World, name: str, done, before: dict, *, more: str = "", said: str = "", free: bool = False) -> str:
    """The outcome of a script that may have ended well. said: the pattern of the warning that must be there where
    results differ. more: its further flags, which a selection records."""
    stage = STAGES[name]
    if _lost(before):
        return "lost"
    outcome = judge(done, stage)
    if outcome != "ended":
        return outcome
    if not world.differences(name, more):
        return "same"
    if said and re.search(said, done.stderr + done.stdout, re.M):
        return "warned"
    return "other" if free else "silent"


# ----------------------------------------------------------------------------------------------------------------- faults
def damage(world: World, rng: random.Random):
    name = world.any_stage(rng, [name for name in world.names if STAGES[name].reads])
    stage = STAGES[name]
    world.expected(name)
    world.fresh(stage)
    pattern = rng.choice(stage.reads)
    path = rng.choice(sorted(found for found in world.place.glob(pattern) if found.is_file()))
    content = bytearray(path.read_bytes())
    how = rng.choice(("flip", "flip", "cut", "empty", "noise", "overwrite", "delete", "folder"))
    at = rng.randrange(len(content))
    if how == "flip":
        content[at] ^= 1 << rng.randrange(8)
    elif how == "overwrite":
        content[at : at + 16] = rng.randbytes(len(content[at : at + 16]))
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "delete":
        path.write_bytes({"cut": content[:at], "empty": b"", "noise": rng.randbytes(len(content))}.get(how, content))
    before = world.files(stage)
    done = world.run(stage)
    free = path.suffix in FREE and not {"cache", "checkpoints", "dynamics"} & {*path.parts}
    free = free and how in ("flip", "overwrite", "cut")
    what = f"{name}: {how} {path.relative_to(world.place)} at {at}"
    # An array may come without its .json; the line that says so names the array.
    said = rf"{re.escape(path.name)}|{re.escape(path.stem)}\.npy has no \.json"
    run = path.relative_to(world.place).parts[1]
    if name == "report":  # its notes name the run; a run without HANS results or predictions is a run like others
        said = rf"^note: (?:\S*/)?{run}[/:]"
        free = free or (how == "delete" and path.name not in ("run.json", "results.json"))
    return what, compare(world, name, done, before, said=said, free=free), done


VALUES = [*(
    "-1 0 1 2 0.5 -0.0 nan inf -inf 1e308 1e-320 1e400 10000000000000000 18446744073709551616 0x10 true None x foo,bar a/b/c "
    "../none /dev/null /proc/self/environ /etc/shadow data data/train.tsv tiny/config.json runs runs/all loop clusters/clusters.npz "
    "embeddings/cls_embeddings_mnli_train.npy hub auto all MNLI RTE STS-B -- * ~"
).split(), "", "foo bar", "\udcff", "\u00e9\u4e2d", "x" * 5000, "9" * 5000, "new/a\nb", "[" * 3000]  # fmt: skip
# Work that is as long as one asks for: large numbers are no fault of these.
LONG = (
    "num_train_epochs",
    "max_steps",
    "num_seeds",
    "proxy_epochs",
    "per_subcase",
    "num_train",
    "num_dev",
    "num_clusters",
)


def flags(world: World, rng: random.Random):
    name = world.any_stage(rng, world.names)
    stage = STAGES[name]
    world.fresh(stage, keep=rng.random() < 0.2)
    (world.place / "loop").symlink_to("loop")
    help_text = world.run(stage, ["--help"], check=0).stdout
    options = sorted(set(re.findall(r"^  --(\w+) (?!or)[A-Z{N]", help_text, re.M)))
    option = rng.choice(options)
    value = rng.choice(VALUES)
    if option in LONG and value.startswith(("1", "9")):
        value = "-7"
    words = stage.flags()
    if f"--{option}" in words:  # instead of what the stage has there
        at = words.index(f"--{option}")
        del words[at : at + 2]
    before = world.files(stage)
    done = world.run(stage, [*words, f"--{option}={value}"])
    outcome = "lost" if _lost(before) else judge(done, stage)
    return f"{name}: --{option} {value[:40]!r}", "accepted" if outcome == "ended" else outcome, done


def _lost(before: dict) -> bool:
    return any(not path.exists() or file_sha256(path) != found for path, found in before.items())


def kill(world: World, rng: random.Random):
    name = world.any_stage(rng, world.names)
    stage = STAGES[name]
    seconds = world.expected(name)[1]
    replaces = rng.random() < 0.25 and name not in ("report", "resume", "sweep")  # these have no flag for it
    more = "--overwrite_output_dir" if replaces else ""
    words = stage.flags(more)
    world.expected(name, more)
    world.fresh(stage, keep=replaces, cold=rng.random() < 0.5)
    before, moments = world.files(stage), []
    if replaces:
        before = {path: found for path, found in before.items() if world.place / stage.out not in path.parents}
    for _ in range(rng.choice((1, 1, 2))):
        moments.append(rng.uniform(0, 1.05 * seconds))
        running = world.start(stage, words)
        if running.wait(moments[-1]) is None:
            running.send(signal.SIGKILL)
        running.finish(HANG)
    done = world.run(stage, words)
    what = f"{name}: killed after {', '.join(f'{moment:.3f}' for moment in moments)} of {seconds:.3f} s{', replacing' if replaces else ''}"
    outcome = compare(world, name, done, before, more=more)
    if outcome == "refused":  # right only where the process had finished before the kill
        whole = "finished" in done.stderr and not world.differences(name, more)
        outcome = "same" if whole else "lost"
    return what, outcome, done


def two(world: World, rng: random.Random):
    name = world.any_stage(rng, world.names)
    stage = STAGES[name]
    rival = stage.rival if rng.random() < 0.7 else ""
    seconds = world.expected(name)[1]
    world.expected(name, rival)
    world.fresh(stage, cold=rng.random() < 0.5)
    before, pause = world.files(stage), rng.choice((0, rng.uniform(0, seconds)))
    first = world.start(stage)
    time.sleep(pause)
    second = world.start(stage, stage.flags(rival), label="second")
    ends = [first.finish(HANG), second.finish(HANG)]
    outcomes = [judge(done, stage) for done in ends]
    bad = next((outcome for outcome in outcomes if outcome in BAD), None)
    if not bad:
        whole = not (world.differences(name) and world.differences(name, rival))
        bad = "lost" if _lost(before) else "same" if whole and "ended" in outcomes else "silent"
    what = f"{name}: two at once, {pause:.3f} s apart, the second with {rival or 'the same flags'}: {outcomes}"
    return what, bad, ends[0] if outcomes[0] in BAD else ends[1]


def disk(world: World, rng: random.Random):
    name = world.any_stage(rng, world.names)
    stage = STAGES[name]
    world.expected(name)
    world.fresh(stage, cold=rng.random() < 0.5)
    before, limit = world.files(stage), int(4096 * 2 ** rng.uniform(0, 8))
    done = world.run(stage, file_size=limit)
    what, outcome = f"{name}: no file above {limit} bytes", compare(world, name, done, before)
    if outcome == "refused":  # the same command goes on where there is space again
        done = world.run(stage)
        outcome = compare(world, name, done, before)
        outcome = "refused" if outcome == "same" else outcome
    return what, outcome, done


class Bomb:
    """Creates the file `harm` in the current folder when it is unpickled."""

    def __reduce__(self):
        return open, ("harm", "w")


def hostile(world: World, rng: random.Random):
    places = {
        "train": ("tiny/tokenizer.json", "cache/encoded/*/input_ids.npy"), "subset": ("chosen_diverse/selection.npz",),
        "evaluate": ("runs/all/model.safetensors", "runs/all/pytorch_model.bin"), "embed": ("runs/all/pytorch_model.bin",),
        "hans": ("runs/all/pytorch_model.bin",), "cluster": ("embeddings/cls_embeddings_mnli_train.npy",),
        "diverse": ("clusters/clusters.npz",), "ambiguous": ("runs/all/dynamics.npz",),
        "entropy": ("embeddings/logits_mnli_train.npy",), "resume": ("broken/dynamics/*.npy", "broken/checkpoints/*/*rs"),
    }  # fmt: skip
    name = rng.choice([name for name in places if name in world.names])
    stage, pattern = STAGES[name], rng.choice(places[name])
    world.expected(name)
    world.fresh(stage)
    path = next(iter(sorted(world.place.glob(pattern))), world.place / pattern)
    if path.suffix == ".bin":
        (path.parent / "model.safetensors").unlink()
    how = rng.choice(("pickle", "npy", "npz", "torch"))
    path.write_bytes(_bomb(how))
    before = world.files(stage)
    done = world.run(stage)
    outcome = compare(world, name, done, before, said=re.escape(path.name))
    harmed = (world.place / "harm").exists()
    return f"{name}: {how} bomb as {path.relative_to(world.place)}", "executed" if harmed else outcome, done


def _bomb(how: str) -> bytes:
    file, array = io.BytesIO(), np.array([Bomb()], dtype=object)
    if how == "npy":
        np.save(file, array, allow_pickle=True)
    elif how == "npz":
        np.savez(file, indices=array, logits=array, labels=array, fingerprint=array)
    elif how == "torch":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"weights": Bomb()}, protocol=2))
            archive.writestr("archive/version", "3\n")
    else:
        file.write(pickle.dumps(Bomb(), protocol=2))
    return file.getvalue()


KINDS = {"damage": damage, "flags": flags, "kill": kill, "two": two, "disk": disk, "hostile": hostile}


# --------------------------------------------------------------------------------------------------------------- campaign
def one_round(world: World, seed: int, number: int, kinds) -> dict:
    rng = random.Random(f"{seed} {number}")
    kind = rng.choice(kinds)
    started = time.perf_counter()
    try:
        what, outcome, done = KINDS[kind](world, rng)
        different = world.different if outcome in ("silent", "other") else []
        end = f"status {done.status}: {done.stderr[-1500:]}{different or ''}"
    except forked.TimedOut as error:
        what, outcome, end = "", "hang", str(error)[-1500:]
    return {
        "round": number, "kind": kind, "what": what, "outcome": outcome, "end": end,
        "seconds": round(time.perf_counter() - started, 2),
    }  # fmt: skip


def campaign(folder: Path, numbers, seed: int, kinds=tuple(KINDS), stages=()) -> list[dict]:
    """The rounds of those numbers, in a world made in `folder`; bad ones are printed as they are found."""
    from tqdm import tqdm

    world, rounds = World(folder, stages), []
    restricted = "".join(f" {name} {' '.join(of)}" for name, of in (("--kinds", kinds), ("--stages", stages)) if of)
    for number in tqdm(numbers, unit="round", disable=None):
        rounds.append(one_round(world, seed, number, kinds))
        if rounds[-1]["outcome"] in BAD:
            found = {key: value for key, value in rounds[-1].items() if key != "end"}
            tqdm.write(
                f"{json.dumps(found)}\n    {rounds[-1]['end']}\n    again: --seed {seed} --only {number}{restricted}"
            )
    return rounds


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__, prog="tests.faults.campaign")
    parser.add_argument("--rounds", type=positive_int, default=1000, help="how many faults")
    parser.add_argument("--seed", type=seed_number, default=0, help="other seeds give other faults")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="kinds of faults")
    parser.add_argument(
        "--only", type=non_negative_int, metavar="ROUND", help="this round alone, of the same --kinds and --stages"
    )
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=[], help="of the world (default: all)")
    parser.add_argument("--output", help="JSON file for all rounds")
    args = parse_args(parser, argv)
    numbers = range(args.rounds) if args.only is None else [args.only]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="faults_") as folder:
        rounds = campaign(Path(folder), numbers, args.seed, args.kinds, args.stages)
    counts = {kind: dict(Counter(r["outcome"] for r in rounds if r["kind"] == kind)) for kind in args.kinds}
    for kind, found in counts.items():
        print(f"{kind:8}" + ", ".join(f"{outcome} {count}" for outcome, count in sorted(found.items())))
    bad = sum(r["outcome"] in BAD for r in rounds)
    print(f"{len(rounds)} rounds in {time.perf_counter() - started:.0f} s, {bad} bad")
    if args.output:
        write_json(args.output, {"seed": args.seed, "kinds": args.kinds, "counts": counts, "rounds": rounds})
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    run_script(main)
