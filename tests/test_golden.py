"""Small fixed inputs give what they gave when tests/golden was recorded. tests/golden/record.py says how to record again."""

import csv
import io
import json

import numpy as np
import pytest

from tests.golden import record
from tests.tiny import ROOT
from utils.report.recorded import csv_rows, read_csv
from utils.selection.strategies import STRATEGIES

RECORDED = json.loads(record.SELECTIONS.read_text(encoding="utf-8"))


def compare(name: str, recorded: dict) -> None:
    """Fail unless the strategy chooses now what its entries in `recorded` say, or has none."""
    again = f"python -m tests.golden.record --only {name}"
    found = record.selection_entries(name)
    missing = found.keys() - recorded.keys()
    if missing:
        pytest.fail(f"no golden values of {', '.join(sorted(missing))}; record them: {again}")
    for entry, values in found.items():
        known = recorded[entry]
        if values["version"] != known["version"]:
            pytest.fail(
                f"{entry}: recorded at version {known['version']}, the registry has version {values['version']}; "
                f"record it again: {again}"
            )
        if values != known:
            pytest.fail(
                f"{entry}: other results at the same version {known['version']}: {values} instead of {known}. Mend it, "
                f"or, where the change is meant, raise the strategy's version and record it again: {again}"
            )


@pytest.mark.parametrize("name", record.own_strategies())
def test_a_strategy_chooses_what_was_recorded(name):
    compare(name, RECORDED)


def test_no_record_outlives_its_strategy():
    names = {entry.partition(",")[0] for entry in RECORDED}
    assert names <= set(STRATEGIES), "remove the entries of strategies that are gone"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 0}, r"recorded at version 0, the registry has version \d+; record it again: .* --only random"),
        ({"weights": "0"}, r"other results at the same version \d+"),
        (None, "no golden values of random; record them: .* --only random"),
    ],
)
def test_what_differs_says_what_to_do(change, message):
    changed = {**RECORDED, "random": {**RECORDED["random"], "version": STRATEGIES["random"].version} | (change or {})}
    if change is None:
        del changed["random"]
    with pytest.raises(pytest.fail.Exception, match=message):
        compare("random", changed)


def test_recording_one_strategy_leaves_the_others_as_they_were(tmp_path, monkeypatch):
    path = tmp_path / "selections.json"
    path.write_text(json.dumps({**RECORDED, "d2": "old", "easy": "old"}))
    monkeypatch.setattr(record, "SELECTIONS", path)
    record.main(["--only", "d2"])
    found = json.loads(path.read_text())
    assert found == {**RECORDED, "easy": "old"}


def test_ten_steps_give_the_recorded_weights():
    known = json.loads(record.WEIGHTS.read_text(encoding="utf-8"))
    found = record.trained_weights()
    assert found.keys() == known.keys()
    for name, values in known.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


def columns(text: str, names: list[str]) -> str:
    """Those columns of a CSV text, as a CSV text."""
    file = io.StringIO()
    writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(csv.DictReader(io.StringIO(text)))
    return file.getvalue()


def test_a_report_writes_the_recorded_rows():
    """Byte for byte in the columns that were recorded. Columns that came later are not compared."""
    known = record.REPORT.read_text(encoding="utf-8")
    assert columns(record.report_csv(), known.splitlines()[0].split(",")) == known


def test_the_studys_rows_are_written_as_they_were_read():
    from hans.challenge import HANS

    path = ROOT / "study" / "first" / "results.csv"
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(csv_rows(read_csv(path, challenges=(HANS,))))
    known = path.read_text(encoding="utf-8")
    assert columns(file.getvalue(), known.splitlines()[0].split(",")) == known
