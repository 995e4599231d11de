#!/usr/bin/env python3
"""Score a HANS predictions file: a stand-in for the authors' script of that name.

  python3 evaluate_heur_output.py FILE_OR_DIR [--data_dir DIR] [--json]

Prints, for a valid file, the same lines in the same order as theirs, so the two compare with diff. FILE holds a header
pairID,gold_label and one line per pair (plain, .xz or .gz); a folder stands for its hans_predictions.txt. Without
--data_dir the evaluation set is the one that test_hans.py used, which the hans_results.json of the same folder names;
where there is no such record, it is looked for in the current folder, the predictions' folder and this script's folder.
Where the authors' script crashes or counts wrong (missing, repeated or foreign ids, unknown labels, no header), this one
says so in one line, status 2.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, `cd hans` included

from hans.data import HUB_DATASET, PREDICTIONS, HansSet, find_evaluation_set, load_hans, load_predictions
from hans.report import format_authors, score
from utils.command_line import ArgumentParser
from utils.errors import InputError, run_script
from utils.files import read_json

RESULTS = "hans_results.json"  # of test_hans.py


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "predictions", metavar="FILE_OR_DIR", help="predictions file, or the folder that holds hans_predictions.txt"
    )
    parser.add_argument("--data_dir", help="folder or file of the evaluation set")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    args = parser.parse_args(argv)
    given = Path(args.predictions)
    predictions = given / PREDICTIONS if given.is_dir() else given
    data = load_hans(args.data_dir) if args.data_dir else _evaluation_set(predictions)
    results = score(data, load_predictions(predictions, data))
    print(json.dumps(results, indent=2) if args.json else format_authors(results))


def _evaluation_set(predictions: Path) -> HansSet:
    """The set that test_hans.py recorded beside its predictions; else one found nearby.

    Raises InputError where there is none, or where it is not what the record says.
    """
    results = predictions.with_name(RESULTS)
    nearby = [Path.cwd(), predictions.parent, Path(__file__).resolve().parent]
    if predictions.name != PREDICTIONS or not results.exists():
        return load_hans(find_evaluation_set(nearby))
    try:
        recorded = read_json(results)["data"]
        source, fingerprint, per_subcase = (recorded.get(key) for key in ("source", "fingerprint", "max_per_subcase"))
        data = load_hans(None if source == HUB_DATASET else find_evaluation_set([source, *nearby]))
        data = data.sample(per_subcase) if per_subcase else data
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{results}: not what test_hans.py writes; give --data_dir <folder or file>") from None
    if data.fingerprint != fingerprint:
        raise InputError(
            f"{data.source}: not the evaluation set that {results} was made with; give --data_dir <folder or file>"
        )
    return data


if __name__ == "__main__":
    run_script(main)
