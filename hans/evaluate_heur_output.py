#!/usr/bin/env python3
"""Score a HANS predictions file: a stand-in for the authors' script of that name.

  python3 evaluate_heur_output.py FILE_OR_DIR [--data_dir DIR] [--json]

Prints, for a valid file, the same lines in the same order as theirs, so the two compare with diff. FILE holds a header
pairID,gold_label and one line per pair (plain, .xz or .gz); a folder stands for its hans_predictions.txt. The
evaluation set is looked for in --data_dir, the current folder, and the predictions' folder. Where theirs crashes or
counts wrong (missing, repeated or foreign ids, unknown labels, no header), this one says so in one line, status 2.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, `cd hans` included

from hans.data import find_evaluation_set, load_hans, load_predictions
from hans.report import format_authors, score
from utils.command_line import ArgumentParser
from utils.errors import run_script


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "predictions", metavar="FILE_OR_DIR", help="predictions file, or the folder that holds hans_predictions.txt"
    )
    parser.add_argument("--data_dir", help="folder or file of the evaluation set")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    args = parser.parse_args(argv)
    folder = Path(args.predictions)
    here = [folder if folder.is_dir() else folder.parent, Path(__file__).resolve().parent]
    data = load_hans(find_evaluation_set([args.data_dir] if args.data_dir else [Path.cwd(), *here]))
    results = score(data, load_predictions(args.predictions, data))
    print(json.dumps(results, indent=2) if args.json else format_authors(results))


if __name__ == "__main__":
    run_script(main)
