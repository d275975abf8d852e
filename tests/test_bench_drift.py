"""The drift table: equal decodes have no distance, other noise has much, and every step is in it."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from vovcodec.bench import drift
from vovcodec.codec.check import LEAST_AGREEMENT_DB
from vovcodec.container import read_vov

GOLDEN = Path(__file__).parent / "golden"
RESULTS = Path(drift.__file__).parent / "results"


@pytest.mark.slow  # five decodes of the shipped model
def test_a_file_compared_with_itself_and_with_other_noise():
    stream = read_vov(GOLDEN / "v0.12-pocket.vov")
    same = drift.Setting("cpu", "float32", 1)
    rows = drift.compare("cup", stream, [same, same, drift.Setting("cpu", "float32", 1, control=True)], force=True)
    n_steps = stream.header.sampler.steps_of(stream.segments[0])
    assert len(rows) == 3 * (n_steps + 1)
    first, again, control = (rows[i * (n_steps + 1) : (i + 1) * (n_steps + 1)] for i in range(3))
    assert [row.step for row in first] == [*range(n_steps), None]
    assert all(row.estimate_db == row.state_db == math.inf for row in again[:-1])
    assert again[-1].psnr_db == math.inf
    assert all(row.estimate_db < 10 for row in control[:-1])
    assert control[-1].psnr_db < 20 and control[-1].thumbnail_db < LEAST_AGREEMENT_DB


def test_the_measured_table_supports_the_threshold_and_shows_no_amplification():
    for path in RESULTS.glob("*_drift.tsv"):
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
        ends = [row for row in rows if not row["step"]]
        assert {row["control"] for row in ends} == {"True", "False"}
        for row in ends:
            seen = float(row["thumbnail_db"])
            assert seen < LEAST_AGREEMENT_DB - 10 if row["control"] == "True" else seen > LEAST_AGREEMENT_DB
        for row in rows:
            if row["step"] and row["control"] == "False":
                assert float(row["estimate_db"]) > 35, "steering amplifies drift"


def test_bad_arguments_end_in_one_line(tmp_path, capsys):
    assert drift.main([str(tmp_path / "none.vov"), "--out", str(tmp_path / "out.tsv")]) == 3
    assert capsys.readouterr().err.startswith("drift: ")
