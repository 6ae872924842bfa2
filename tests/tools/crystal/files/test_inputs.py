"""Files of proposals: one row in, one input out, and clear errors for files that cannot be used."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.crystal.files import CifReader, RawInput, parse_raw, read_inputs
from hullward.tools.crystal.files.yaml_document import load_yaml
from hullward.tools.records import Flaw, Reason

TEXT = "4.0 4.0 4.0\n90 90 90\nNa\n0.00 0.00 0.00\nCl\n0.50 0.50 0.50"
CELL = [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]]
CRYSTAL = Crystal.from_arrays(CELL, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
ROW: dict[str, Any] = {
    "lengths": [4.0, 4.0, 4.0],
    "angles": [90.0, 90.0, 90.0],
    "species": ["Na", "Cl"],
    "coords": [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]],
}
PACKED = {name: json.dumps(value) for name, value in ROW.items()}


@pytest.fixture(scope="module")
def reader() -> Iterator[CifReader]:
    with CifReader() as reader:
        yield reader


@pytest.fixture(scope="module")
def cif() -> str:
    from pymatgen.io.cif import CifWriter

    return str(CifWriter(CRYSTAL.to_structure()))


def write_lines(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def same(found: Crystal | Flaw) -> bool:
    return isinstance(found, Crystal) and found.content_id == CRYSTAL.content_id


def parse(found: RawInput, reader: CifReader | None = None) -> Crystal | Flaw:
    return parse_raw(found.raw, found.format, reader)


@pytest.mark.parametrize("field", ["text", "raw"])
def test_crystal_text_is_kept_verbatim(tmp_path: Path, field: str) -> None:
    prompt = "Below is a description. The chemical formula is Na2O3. Generate"
    path = write_lines(
        tmp_path / "a.jsonl",
        {field: TEXT + "\n", "formula": "NaCl"},
        {field: "", "prompt": prompt},
        {field: "\ud800", "target_formula": "KCl", "formula": "NaCl"},
    )
    first, second, third = read_inputs(path)
    assert first == RawInput(TEXT + "\n", "crystal_text", "a.jsonl#0", "NaCl")
    assert same(parse(first))
    assert second == RawInput("", "crystal_text", "a.jsonl#1", "Na2O3")
    assert parse(second).reason == Reason.EMPTY  # type: ignore[union-attr]
    assert third == RawInput("\\ud800", "crystal_text", "a.jsonl#2", "KCl")


def test_the_form_of_the_asymmetric_unit_is_known_by_its_first_line(tmp_path: Path) -> None:
    said = ["221\nCa 1 1a\nTi 1 1b\nO 3 3c\n3.9", "221\nCa 1 1a\nTi 1 1a\n3.9", TEXT]
    rows = [{"text": text, "target_formula": "CaTiO3"} for text in said]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = list(read_inputs(path))
    assert [one.format for one in found] == ["asymmetric_text", "asymmetric_text", "crystal_text"]
    assert {one.target_formula for one in found} == {"CaTiO3"}
    assert [one.raw for one in found] == said
    crystal, flaw, other = (parse_raw(one.raw, one.format) for one in found)
    assert isinstance(crystal, Crystal)
    assert crystal.formula == "CaTiO3"
    assert isinstance(flaw, Flaw)
    assert flaw.reason == Reason.BAD_ELEMENT_LINE
    assert isinstance(other, Crystal)


def test_tables_of_every_kind_give_the_same_inputs(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([PACKED]), tmp_path / "a.parquet")
    pq.write_table(pa.Table.from_pylist([ROW]), tmp_path / "lists.parquet")
    write_lines(tmp_path / "a.jsonl", ROW)
    (tmp_path / "a.json").write_text(json.dumps([ROW]))
    cells = ",".join('"' + PACKED[name].replace('"', '""') + '"' for name in PACKED)
    (tmp_path / "a.csv").write_text(",".join(PACKED) + "\n" + cells + "\n")
    for path in tmp_path.iterdir():
        (found,) = read_inputs(path)
        assert found.raw == json.dumps(ROW, separators=(",", ":"))
        assert (found.format, found.source) == ("table_row", f"{path.name}#0")
        assert same(parse(found))


@pytest.mark.parametrize(
    ("names", "source"),
    [
        ({"material_id": "mp-1005"}, "mp-1005 (a.jsonl#0)"),
        ({"id": 7.0, "mp_id": "mp-1"}, "7 (a.jsonl#0)"),
        ({"material_id": "", "mp_id": "mp-1"}, "mp-1 (a.jsonl#0)"),
        ({"material_id": None}, "a.jsonl#0"),
    ],
)
def test_the_users_own_name_of_a_row_is_kept(tmp_path: Path, names, source: str) -> None:
    (found,) = read_inputs(write_lines(tmp_path / "a.jsonl", ROW | names))
    assert found.source == source


def test_a_formula_beside_a_structure_is_no_target(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ROW | {"formula": "NaCl"})
    assert [found.target_formula for found in read_inputs(path)] == [None]
    path = write_lines(tmp_path / "a.jsonl", ROW | {"target_formula": "NaCl"})
    assert [found.target_formula for found in read_inputs(path)] == ["NaCl"]


def test_structures_as_json(tmp_path: Path) -> None:
    structure = CRYSTAL.to_structure().as_dict()
    own = CRYSTAL.model_dump(mode="json")
    for row in ({"structure": structure}, {"structure": own}, structure, own):
        (found,) = read_inputs(write_lines(tmp_path / "a.jsonl", row))
        assert found.format == "crystal_json"
        assert same(parse(found))


def test_cif_in_files_folders_and_columns(tmp_path: Path, cif: str, reader: CifReader) -> None:
    (tmp_path / "b.cif").write_text(cif + cif)
    (tmp_path / "a.CIF").write_bytes(cif.encode() + b"# M\xfcller\n")
    (tmp_path / "readme.txt").write_text("not a crystal")
    found = list(read_inputs(tmp_path))
    assert [f.source for f in found] == ["a.CIF#0", "b.cif#0", "b.cif#1"]
    assert found[0].raw.endswith("# Müller\n")
    assert list(read_inputs(tmp_path / "b.cif")) == found[1:]
    pq.write_table(pa.Table.from_pylist([{"cif": cif}]), tmp_path / "a.parquet")
    found += read_inputs(tmp_path / "a.parquet")
    assert len(found) == 4
    assert all(same(parse(f, reader)) for f in found)


def test_an_enormous_cif_is_read_only_far_enough_to_be_refused(
    tmp_path: Path, cif: str, reader: CifReader
) -> None:
    (tmp_path / "a.cif").write_text(cif + "#" * 3_000_000)
    (found,) = read_inputs(tmp_path / "a.cif")
    assert len(found.raw) == 1_000_001
    assert parse(found, reader).reason == Reason.TOO_LARGE  # type: ignore[union-attr]


def test_two_structures_are_not_one_crystal(cif: str, reader: CifReader) -> None:
    flaw = parse_raw(cif + cif, "cif", reader)
    assert isinstance(flaw, Flaw)
    assert "2 structures" in flaw.detail


FRAME = '2\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3{}\nNa 0 0 0\nCl 2 2 2\n'


def test_extxyz_frames_stand_alone(tmp_path: Path) -> None:
    frames = [
        FRAME.format(' pbc="T T T"'),
        FRAME.format("").replace("Cl 2", "Cl two"),
        FRAME.format(' pbc="T T F"'),
        "1\nno lattice\nNa 0 0 0\n",
        FRAME.format("").replace("Na", "X"),
        FRAME.format(""),
        "not a count\nNa 0 0 0\n",
    ]
    path = tmp_path / "a.extxyz"
    path.write_text("".join(frames))
    first, broken, slab, molecule, unknown, last, rest = (parse(f) for f in read_inputs(path))
    assert same(first)
    assert same(last)
    for flaw in (broken, slab, molecule, rest):
        assert isinstance(flaw, Flaw)
        assert flaw.reason == Reason.MALFORMED_ROW
    assert unknown.reason == Reason.UNKNOWN_ELEMENT  # type: ignore[union-attr]


MALFORMED = Reason.MALFORMED_ROW
ROW_FAULTS: list[tuple[dict[str, Any], Reason]] = [
    (dict.fromkeys(ROW), Reason.EMPTY),
    (dict.fromkeys(ROW, math.nan), Reason.EMPTY),
    (dict.fromkeys(ROW, ""), Reason.EMPTY),
    ({"lengths": None}, MALFORMED),
    ({"lengths": "[4.0, 4.0"}, MALFORMED),
    ({"lengths": [4.0, 4.0]}, MALFORMED),
    ({"lengths": [4.0, 4.0, "4.0"]}, MALFORMED),
    ({"lengths": [4.0, 4.0, True]}, MALFORMED),
    ({"lengths": [4.0, 4.0, math.nan]}, MALFORMED),
    ({"lengths": [4.0, 4.0, 10**400]}, MALFORMED),
    ({"lengths": [4.0, 4.0, -4.0]}, Reason.IMPOSSIBLE_CELL),
    ({"lengths": [4.0, 4.0, 0.0]}, Reason.IMPOSSIBLE_CELL),
    ({"lengths": [4.0, 4.0, 1e308]}, Reason.IMPOSSIBLE_CELL),
    ({"angles": [120, 120, 120]}, Reason.IMPOSSIBLE_CELL),
    ({"angles": [0.85, 0.56, 0.22]}, Reason.IMPOSSIBLE_CELL),
    ({"angles": {"alpha": 90}}, MALFORMED),
    ({"species": []}, MALFORMED),
    ({"species": [], "coords": []}, Reason.NO_SITES),
    ({"species": ["Na"]}, MALFORMED),
    ({"species": ["Na", 17]}, MALFORMED),
    ({"species": ["Na", "Xx"]}, Reason.UNKNOWN_ELEMENT),
    ({"species": "['Na', 'Cl']"}, MALFORMED),
    ({"species": ["Na"] * 501, "coords": [[0, 0, 0]] * 501}, Reason.TOO_LARGE),
    ({"coords": [[0, 0, 0], [0.5, 0.5]]}, MALFORMED),
    ({"coords": [[0, 0, 0], [0.5, 0.5, math.inf]]}, MALFORMED),
    ({"coords": [[0, 0, 0], [0.5, 0.5, 1e30]]}, MALFORMED),
    ({"coords": [[0, 0, 0], None]}, MALFORMED),
]


@pytest.mark.parametrize(("fault", "reason"), ROW_FAULTS, ids=range(len(ROW_FAULTS)))
def test_each_faulty_row_has_its_reason(
    tmp_path: Path, fault: dict[str, Any], reason: Reason
) -> None:
    good, bad, also_good = read_inputs(write_lines(tmp_path / "a.jsonl", ROW, ROW | fault, ROW))
    assert same(parse(good))
    assert same(parse(also_good))
    flaw = parse(bad)
    assert isinstance(flaw, Flaw)
    assert flaw.reason == reason
    assert 0 < len(flaw.detail) < 250


def test_a_line_that_is_no_row_is_malformed_in_its_place(tmp_path: Path) -> None:
    lines = ["{", ROW, "[1, 2]", '"text"', "null", "9" * 5000, "[" * 100_000, ROW]
    found = [parse(f) for f in read_inputs(write_lines(tmp_path / "a.jsonl", *lines))]
    assert [isinstance(f, Crystal) for f in found] == [isinstance(x, dict) for x in lines]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s["sites"][0]["species"].append({"occu": 0.5}), Reason.DISORDERED),
        (lambda s: s["sites"][0]["species"][0].update(occu=0.5), Reason.DISORDERED),
        (lambda s: s["sites"][0]["species"][0].update(element="X0+"), Reason.UNKNOWN_ELEMENT),
        (lambda s: s["sites"][0].pop("abc"), MALFORMED),
        (lambda s: s["sites"].clear(), Reason.NO_SITES),
        (lambda s: s["lattice"].update(matrix=[[0, 0, 0]] * 3), Reason.IMPOSSIBLE_CELL),
        (lambda s: s["lattice"].update(matrix=[[1, 2, 3]] * 3), Reason.IMPOSSIBLE_CELL),
        (lambda s: s["lattice"].update(pbc=[True, True, False]), MALFORMED),
        (lambda s: s.pop("lattice"), MALFORMED),
    ],
)  # fmt: skip
def test_each_faulty_structure_has_its_reason(change: Any, reason: Reason) -> None:
    structure = json.loads(json.dumps(CRYSTAL.to_structure().as_dict()))
    change(structure)
    flaw = parse_raw(json.dumps(structure), "crystal_json")
    assert isinstance(flaw, Flaw)
    assert flaw.reason == reason


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(ROW)), json_values))
def test_arbitrary_cells_never_raise(row: dict[str, Any]) -> None:
    assert isinstance(parse_raw(json.dumps(ROW | row), "table_row"), Crystal | Flaw)
    structure = CRYSTAL.model_dump(mode="json") | row | {"sites": row.get("coords")}
    assert isinstance(parse_raw(json.dumps(structure), "crystal_json"), Crystal | Flaw)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"4.0", "unknown kind of file '.txt'"),
        ("a.parquet", b"not parquet", "cannot be read as .parquet"),
        ("a.json", b"{", "cannot be read as .json"),
        ("a.json", b'[{"smiles": "C"}]', "expected .*; found `smiles`"),
        ("a.jsonl", b'{"lengths": 1, "angles": 2}\n', "found `lengths`, `angles`"),
        ("a.jsonl", b"", "found no rows"),
        ("a.csv", b"formula,energy\nNaCl,1\n", "found `formula`, `energy`"),
        ("a.csv", b"", "found no rows"),
        ("a.extxyz", b"\n", "no frames"),
        ("folder/a.txt", b"", "contains no CIF and no POSCAR"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_inputs(path.parent if path.parent != tmp_path else path)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_inputs(tmp_path / "none.parquet")


def test_a_table_damaged_further_down_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([PACKED] * 50), path, compression="snappy")
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        list(read_inputs(path))


def test_every_llamat2_row_is_a_crystal_or_has_a_reason(shared_data: Path) -> None:
    """Counts measured with this code on the 7,000 rows; 186 were already unparsed in the source."""
    found = list(read_inputs(shared_data / "known" / "llamat2_generated.parquet"))
    parsed = [parse(f) for f in found]
    counts = Counter(f.reason.value if isinstance(f, Flaw) else "crystal" for f in parsed)
    assert len({f.source for f in found}) == 7000
    assert counts == {"crystal": 6796, "empty": 186, "impossible_cell": 16, "unknown_element": 2}


def test_the_relaxation_workload_is_read_whole(shared_data: Path) -> None:
    found = list(read_inputs(shared_data / "known" / "relax_workload_48.jsonl"))
    assert len(found) == 48
    assert all(isinstance(parse(f), Crystal) for f in found)


def test_published_generated_cifs_are_read(shared_data: Path, reader: CifReader) -> None:
    path = shared_data / "known" / "generated_dft_decomposition.parquet"
    for found in list(read_inputs(path))[::15]:
        crystal = parse(found, reader)
        assert isinstance(crystal, Crystal) or crystal.reason == Reason.EMPTY


def test_yaml_is_read_by_the_rules_of_1_2() -> None:
    """Nitrogen monoxide is not false, a leading zero is no octal, and 5e-1 is a number."""
    text = "a: [No, O]\nb: [042e-1, 5e-1, 010, '5']\nc: {No: ~}\n"
    assert load_yaml(text, "x.yaml") == {
        "a": ["No", "O"],
        "b": [4.2, 0.5, 10, "5"],
        "c": {"No": None},
    }
