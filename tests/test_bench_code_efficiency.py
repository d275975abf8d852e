"""The benchmark of steering's codes: its table, and what it is there to show."""

from __future__ import annotations

from vovcodec.bench import code_efficiency


def test_paths_buy_more_than_positions(tmp_path, capsys):
    out = tmp_path / "table.tsv"
    arguments = ["--entries", "4096", "--bits", "60", "--memory", "8", "--residuals", "4", "--out", str(out)]
    assert code_efficiency.main(arguments) == 0
    header, *rows = (line.split("\t") for line in out.read_text().splitlines())
    positions, path = (dict(zip(header, row, strict=True)) for row in rows)
    assert (positions["code"], path["code"]) == ("signed positions", "trellis, 2^8 states")
    assert 0.4 < float(positions["efficiency"]) < float(path["efficiency"]) < 1.05
    assert len(capsys.readouterr().out.splitlines()) == 2
