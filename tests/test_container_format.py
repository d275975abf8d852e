"""FORMAT.md says what the code does, golden files stay readable, and the overhead stays small."""

from __future__ import annotations

import binascii
import json
import re
import subprocess
import sys
import zlib
from importlib import resources
from pathlib import Path

import container_samples as samples
import pytest

from vovcodec.container import audio, count_of_index, describe, describe_lines, parse, read_vov, serialize
from vovcodec.container import layout as lay
from vovcodec.container.compressed import CAPTION_DICTIONARY, pack_caption
from vovcodec.container.counts import ATOMS_MAX, K_MAX
from vovcodec.container.spec import field_table, rule_list, worked_example

FORMAT = resources.files("vovcodec.container").joinpath("FORMAT.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("fields", ["HEADER_FIELDS", "CAPTION_FIELDS", "SEGMENT_FIELDS", "VECTOR_FIELDS",
                                    "GENERATION_FIELDS", "INDEX_HEAD", "INDEX_ENTRY", "INDEX_TAIL"])  # fmt: skip
def test_format_text_has_the_field_tables(fields: str) -> None:
    assert field_table(getattr(lay, fields)) in FORMAT


def test_format_text_has_the_tables_of_the_sound() -> None:
    assert field_table(audio.AUDIO_FIELDS) in FORMAT
    assert field_table(audio.PACKET_FIELDS) in FORMAT


def test_format_text_has_rules_version_magic_and_types() -> None:
    assert rule_list(lay.HEADER_RULES) in FORMAT
    assert rule_list(lay.SEGMENT_RULES) in FORMAT
    assert rule_list(lay.GENERATION_RULES) in FORMAT
    assert f"A segment has 0 to {lay.MERGED_VECTORS_MAX} such sections" in FORMAT
    assert FORMAT.startswith("# The `.vov` file, format version {}.{}\n".format(*lay.VERSION))
    assert f"`{lay.MAGIC.hex(' ')}`" in FORMAT
    for type_, name in lay.SECTION_NAMES.items():
        assert f"| 0x{type_:02X} | {name.upper()} |" in FORMAT
    for limit in (lay.CAPTION_BYTES_MAX, lay.VECTOR_WORDS_MAX, lay.ATOM_WORDS_MAX, lay.HISTORY_BYTES_MAX):
        assert f"{limit:,}" in FORMAT


def test_format_text_has_every_section_that_the_code_cites() -> None:
    titles = set(re.findall(r"^#+ [\d.]+ (.*)$", FORMAT, re.MULTILINE))
    numbers = set(re.findall(r"^#+ ([\d.]+?)\.? ", FORMAT, re.MULTILINE))
    package = Path(str(resources.files("vovcodec")))
    text = "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    cited = set(re.findall(r'FORMAT\.md, "([^"]+)"', text))
    assert {"Random streams", "Atom positions", "Times"} <= cited <= titles
    assert set(re.findall(r"\bsections? (\d+(?:\.\d+)?)", FORMAT)) <= numbers
    assert [n for n in numbers if "." not in n and not 1 <= int(n) <= 23] == []


def test_format_text_has_the_grid_of_counts() -> None:
    listed = re.search(r"(0, 1, 2, [\d,\s]+), \.\.\., M_(\d+) = ([\d,]+)\.", FORMAT)
    values = [int(number) for number in listed.group(1).split(",")]
    assert values == [count_of_index(k) for k in range(len(values))]
    assert (int(listed.group(2)), listed.group(3)) == (K_MAX, f"{count_of_index(K_MAX):,}")
    assert f"k MUST be 0..{K_MAX}" in FORMAT
    assert f"at most {ATOMS_MAX:,}" in " ".join(FORMAT.split())


def test_format_text_lists_the_caption_dictionary() -> None:
    listed = re.search(r"```text\n(.*?)\n```", FORMAT, re.DOTALL).group(1)
    assert listed.replace("\n", " ").encode("ascii") + b" " == CAPTION_DICTIONARY
    assert f"{len(CAPTION_DICTIONARY)} bytes of ASCII, CRC-32 {zlib.crc32(CAPTION_DICTIONARY):08X}" in FORMAT
    # The check values that the text gives.
    assert (zlib.crc32(b"123456789"), binascii.crc_hqx(b"123456789", 0xFFFF)) == (0xCBF43926, 0x29B1)


def test_format_text_has_the_worked_example() -> None:
    data = (samples.GOLDEN / "v0.12-steering.vov").read_bytes()
    assert worked_example(data) in FORMAT


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_golden_files_of_this_version_read_as_what_was_written(name: str) -> None:
    path = samples.GOLDEN / f"v0.12-{name}.vov"
    content = read_vov(path)
    assert content == samples.SAMPLES[name]()
    assert content.version == lay.VERSION
    if CAPTION_BYTES_ARE_REPRODUCIBLE:
        assert serialize(content) == path.read_bytes()


# Compressed captions may differ between zlib builds; everything else may not.
CAPTION_BYTES_ARE_REPRODUCIBLE = pack_caption("a red kite", "test")[1] == bytes.fromhex("4b04255f50664e0500")


def test_every_golden_file_reads() -> None:
    paths = sorted(samples.GOLDEN.glob("v*.vov"))
    assert len(paths) >= len(samples.SAMPLES)
    for path in paths:
        content = read_vov(path)
        assert content.segments
        assert describe(content)["size_bytes"] == path.stat().st_size


@pytest.mark.parametrize(
    ("content", "most"),
    [
        (samples.steering_only(800), 48),  # 14 injections
        (samples.vector_only(), 54),
    ],
    ids=["steering", "vector"],
)
def test_overhead_of_one_segment(content, most: int) -> None:
    data = serialize(content)
    report = describe(parse(data))
    segment = content.segments[0]
    coded = segment.vector.model + segment.vector.words if segment.vector else segment.atoms.words
    caption = dict(next(s for s in report["sections"] if s["name"] == "segment")["parts"])["caption"]
    assert report["overhead_bytes"] == len(data) - len(coded) - caption
    assert report["overhead_bytes"] <= most


def test_overhead_of_everything_stays_below_one_percent_of_32_kib() -> None:
    content = samples.three_segments()
    one = type(content)(
        samples.header(backbone_id="x" * 32, backbone_revision="y" * 64, adaptation=content.header.adaptation,
                       sampler=content.header.sampler, segment_frames=81, n_frames=81, frame_rate_num=123457,
                       frame_rate_den=4567, colour_matrix=77, sample_aspect_num=3),
        content.segments[:1], "shared",
    )  # fmt: skip
    assert describe(one)["overhead_bytes"] <= 327


def test_description_is_json_and_complete() -> None:
    content = samples.three_segments()
    report = describe(parse(serialize(content)))
    assert json.loads(json.dumps(report)) == report
    assert report == describe(content)  # built or read makes no difference
    assert report["size_bytes"] == len(serialize(content))
    assert sum(section["size_bytes"] for section in report["sections"]) + lay.PREFIX_SIZE == report["size_bytes"]
    assert report["header"]["sampler"]["shift_q8"] == 777
    assert report["header"]["fingerprint"] == "01234567"
    assert report["segments"][0]["vector"]["words_bytes"] == 400
    assert report["segments"][0]["atoms"]["counts"] == [0, 14, 96, 400_000]
    assert [segment["n_steps"] for segment in report["segments"]] == [5, 5, 5]
    assert report["segments"][1]["caption"] == "Ein grüner Wald, 森"
    named = {name.split(".")[-1] for field in lay.HEADER_FIELDS for name in field.names} - {"has_adaptation"}
    shown = set(report["header"]) | set(report["header"]["sampler"]) | set(report["header"]["adaptation"])
    assert named <= shown


def test_further_vectors_and_generation_are_described() -> None:
    content = parse(serialize(samples.merged()))
    report = describe(content)
    first, second = report["segments"]
    assert [update["adaptation"]["strength_q8"] for update in first["merged"]] == [-128, 1]
    assert [update["vector"]["words_bytes"] for update in first["merged"]] == [0, 40]
    assert first["generation"] == {"n_injections": 25, "eta_scale_q": 100}
    assert (first["n_steps"], second["n_steps"]) == (26, 2)
    parts = [section["parts"] for section in report["sections"] if section["name"] == "vector"]
    assert parts[:2] == [{"vector.model": 0, "vector.words": 0}, {"vector.model": 3, "vector.words": 40}]
    text = "\n".join(describe_lines(report))
    for words in ("merged 2 vector.words_bytes", "generation.n_injections", "vector of segment 0", "keep-structure"):
        assert words in text


def test_description_lines_show_every_value_and_the_damage() -> None:
    data = bytearray(serialize(samples.three_segments()))
    text = "\n".join(describe_lines(describe(parse(bytes(data)))))
    for words in (
        "source_width",
        "1919 px",
        "somebody/else-5b",
        "'a forest'",
        "atoms.counts",
        "0 14 96 400000",
        "1/200",
        "n_steps",
        "panda",
    ):
        assert words in text
    data[-60] ^= 1
    assert "damage in " in "\n".join(describe_lines(describe(parse(bytes(data), tolerant=True))))


def test_container_loads_neither_torch_nor_numpy_nor_the_codec() -> None:
    script = (
        "import sys, vovcodec.container\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy', 'av') or m == 'vovcodec.codec'"
        " or m.startswith('vovcodec.') and m.split('.')[1] not in ('container', 'errors', 'atomic')]\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
