"""Files of entries: OPTIMADE, tables of either energy, damage, and one refusal per deformity."""

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from zstandard import ZstdCompressor

from hullward.models.errors import InputError
from hullward.tools.reference import load_reference
from hullward.tools.reference.sources import mp2020_elements, read_entries
from hullward.tools.reference.sources.energies import EnergyColumn, energy_column


def structure(name: str, formula: str, **own: Any) -> dict[str, Any]:
    return {
        "type": "structures",
        "id": name,
        "attributes": {"chemical_formula_reduced": formula, "nelements": 1, **own},
    }


HEADER = {"x-optimade": {"meta": {"api_version": "1.2.0"}}}
INFO = {
    "type": "info",
    "id": "structures",
    "properties": {"_ours_formation_energy_per_atom": {"x-optimade-unit": "eV"}},
}
GOOD = [
    HEADER,
    INFO,
    structure("a", "Li2O", _ours_formation_energy_per_atom=-2.0, _ours_e_above_hull=0.0),
    structure("b", "Li2O2", _ours_formation_energy_per_atom=-1.6, _ours_e_above_hull=0.0),
    {"type": "references", "id": "r", "attributes": {"doi": "10.1/x"}},
]


def save(path: Path, lines: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return path


# -- OPTIMADE -----------------------------------------------------------------------------------


def test_optimade_formation_energies_count_from_their_scheme_s_elements(tmp_path: Path) -> None:
    reference = load_reference(f"file:{save(tmp_path / 'o.jsonl', GOOD)}")
    zero = mp2020_elements()
    hull = reference.hull("Li-O")
    expected = -2.0 + (2 * zero["Li"] + zero["O"]) / 3
    assert hull.distance({"Li": 2, "O": 1}, expected)[0] == pytest.approx(0.0, abs=1e-12)
    assert {p.phase_id for p in reference.phases("Li-O")} == {"a", "b", "element-Li", "element-O"}
    assert "_ours_formation_energy_per_atom" in reference.statement


def test_optimade_entries_are_judged_without_the_elements_added(tmp_path: Path) -> None:
    entries = read_entries(save(tmp_path / "o.jsonl", GOOD))
    assert [p.phase_id for p in entries.phases] == ["a", "b"]


def test_optimade_entries_may_be_wrapped_as_an_answer_of_the_web(tmp_path: Path) -> None:
    wrapped = [HEADER, *({"data": row} for row in GOOD[2:])]
    assert len(read_entries(save(tmp_path / "o.jsonl", wrapped)).phases) == 2


def test_optimade_structures_become_crystals(tmp_path: Path) -> None:
    cell = {
        "lattice_vectors": [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]],
        "cartesian_site_positions": [[0, 0, 0], [2.0, 2.0, 2.0]],
        "species_at_sites": ["Li1", "O"],
        "species": [
            {"name": "Li1", "chemical_symbols": ["Li"], "concentration": [1.0]},
            {"name": "O", "chemical_symbols": ["O"], "concentration": [1.0]},
        ],
        "_x_energy_per_atom": -4.0,
    }
    half = copy.deepcopy(cell)
    half["species"][0] |= {"chemical_symbols": ["Li", "vacancy"], "concentration": [0.5, 0.5]}
    rows = [HEADER, structure("whole", "LiO", **cell), structure("half", "LiO", **half)]
    whole, partly = read_entries(save(tmp_path / "o.jsonl", rows)).phases
    assert whole.crystal is not None
    assert sorted(whole.crystal.species) == ["Li", "O"]
    assert [list(site) for site in whole.crystal.frac_coords] == [[0, 0, 0], [0.5, 0.5, 0.5]]
    assert partly.crystal is None


def changed(row: int, **attributes: Any) -> list[Any]:
    lines = copy.deepcopy(GOOD)
    lines[row]["attributes"] |= attributes
    return lines


ONE_FLAW: list[tuple[str, list[Any], str]] = [
    ("no structures", [HEADER, GOOD[4]], "holds no OPTIMADE structures"),
    ("no attributes", [HEADER, {"type": "structures", "id": "a"}], "without 'attributes'"),
    ("no energy", [HEADER, structure("a", "Li2O")], r"needs energies in eV/atom"),
    (
        "two energies",
        changed(2, _ours_energy_per_atom=-5.0),
        "'_ours_formation_energy_per_atom' and '_ours_energy_per_atom' are both.*energy_property",
    ),
    ("energy of one missing", changed(3, _ours_formation_energy_per_atom=None), "'b' has no"),
    ("energy a word", changed(3, _ours_formation_energy_per_atom="low"), "#4: not an OPTIMADE"),
    ("energy not a number", changed(3, _ours_formation_energy_per_atom=float("nan")), "#4: not an"),
    ("no formula", changed(3, chemical_formula_reduced=None), "#4: structure .* no formula"),
    ("unknown element", changed(3, chemical_formula_reduced="Xq2O"), "#4: .*'Xq' is no element"),
    ("another unit", [HEADER, {**INFO, "properties": {"_ours_formation_energy_per_atom": {
        "x-optimade-unit": "kJ/mol"}}}, *GOOD[2:]], "is in kJ/mol; give eV/atom"),
    ("one id, two energies", [*GOOD, structure("a", "Li2O", _ours_formation_energy_per_atom=-1.0)],
     "id 'a' occurs with two energies"),
    ("no zero for an element", changed(3, chemical_formula_reduced="LiPo"), "no energy of the"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "message"), [f[1:] for f in ONE_FLAW], ids=[f[0] for f in ONE_FLAW]
)
def test_one_flaw_one_message(tmp_path: Path, lines: list[Any], message: str) -> None:
    assert len(read_entries(save(tmp_path / "good.jsonl", GOOD)).phases) == 2
    with pytest.raises(InputError, match=message) as caught:
        load_reference(f"file:{save(tmp_path / 'bad.jsonl', lines)}")
    assert "\n" not in str(caught.value)
    assert "bad.jsonl" in str(caught.value)


def test_the_owner_names_the_energy_where_several_would_do(tmp_path: Path) -> None:
    path = save(tmp_path / "o.jsonl", changed(2, _x_energy_per_atom=-5.0))
    (tmp_path / "o.reference.json").write_text(
        json.dumps({"energy_property": "_ours_formation_energy_per_atom"})
    )
    assert load_reference(f"file:{path}").elements == {"Li", "O"}
    with pytest.raises(InputError, match="'b' has no '_x_energy_per_atom'"):
        read_entries(path, "_x_energy_per_atom")


def test_the_same_entry_twice_is_one(tmp_path: Path) -> None:
    reference = load_reference(f"file:{save(tmp_path / 'o.jsonl', [*GOOD, GOOD[2]])}")
    assert [p.phase_id for p in reference.phases("Li-O")].count("a") == 1


# -- which column is the energy -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["formula", "formation_energy_per_atom"], ("formation_energy_per_atom", "formation")),
        (["e_form_ev_per_atom", "e_above_hull"], ("e_form_ev_per_atom", "formation")),
        (["_jarvis_formation_energy_peratom"], ("_jarvis_formation_energy_peratom", "formation")),
        (["energy_ev_per_atom"], ("energy_ev_per_atom", "total")),
        (["energy", "energy_per_atom"], ("energy_per_atom", "total")),
        (["total energy (eV/atom)"], ("total energy (eV/atom)", "total")),
        (["uncorrected_energy_per_atom", "energy_per_atom"], ("energy_per_atom", "total")),
        (["formation_energy_per_atom", "hull_energy_per_atom"],
         ("formation_energy_per_atom", "formation")),
        (["hull_entry_energy_per_atom", "phase_formation_energy_per_atom"],
         ("hull_entry_energy_per_atom", "formation")),
    ],
)  # fmt: skip
def test_the_energy_is_found_by_name_and_unit(names: list[str], found: tuple[str, str]) -> None:
    assert energy_column(names, "t.csv") == EnergyColumn(*found)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "chosen", "message"),
    [
        (["formation_energy_per_atom", "energy_per_atom"], None, "both energies per atom"),
        (["energy"], None, r"'energy': not in eV per atom"),
        (["formation_energy_mev_per_atom"], None, "not in eV per atom"),
        (["uncorrected_energy_per_atom"], None, "needs energies in eV/atom"),
        (["e_above_hull"], None, "needs energies in eV/atom"),
        (["energy_per_atom"], "other", "has no energy 'other'"),
        (["energy_kj_per_atom"], "energy_kj_per_atom", "is in kj; give eV/atom"),
    ],
)
def test_an_energy_that_cannot_be_told_is_refused(
    names: list[str], chosen: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        energy_column(names, "t.csv", chosen)


def test_a_table_of_total_energies_is_a_reference_on_its_own_elements(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pd.DataFrame({"formula": ["Li", "O2", "Li2O"], "energy_per_atom": [-1.9, -4.9, -4.7]}).to_csv(
        path
    )
    reference = load_reference(f"file:{path}")
    assert reference.elements == {"Li", "O"}
    assert reference.hull("Li-O").distance({"Li": 2, "O": 1}, -4.7)[0] == pytest.approx(0.0)
    assert "taken as final" in reference.statement
    with pytest.raises(InputError, match="no phase of Na"):
        reference.hull("Na-O")


def test_a_table_of_total_energies_may_be_on_any_scheme(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pd.DataFrame({"formula": ["Li"], "energy_per_atom": [-1.9]}).to_csv(path)
    (tmp_path / "t.reference.json").write_text('{"energy_scheme": "r2scan"}')
    assert load_reference(f"file:{path}").energy_scheme == "r2scan"


def test_noble_gases_are_read_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pd.DataFrame(
        {"formula": ["He", "Ar", "NaHe2"], "formation_energy_per_atom": [0, 0, 0.1]}
    ).to_csv(path)
    assert [p.formula for p in read_entries(path).phases] == ["He", "Ar", "NaHe2"]


# -- damage -------------------------------------------------------------------------------------

ENTRIES = [
    {"entry_id": f"e{i}", "composition": {"Li": 1.0}, "energy": -1.9 + 0.01 * i, "correction": 0.0}
    for i in range(40)
]
TEXT = "\n".join(map(json.dumps, ENTRIES)).encode()


def test_whole_files_are_read_however_packed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(TEXT)
    (tmp_path / "b.jsonl.zst").write_bytes(ZstdCompressor().compress(TEXT))
    half = len(TEXT) // 2
    parts = [ZstdCompressor().compress(part) for part in (TEXT[:half], TEXT[half:])]
    (tmp_path / "c.jsonl.zst").write_bytes(b"".join(parts))  # frames one after another
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(TEXT))
    for name in ("a.jsonl", "b.jsonl.zst", "c.jsonl.zst", "d.jsonl.gz"):
        assert len(read_entries(tmp_path / name).phases) == 40


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", TEXT[:-20], "a.jsonl#40 is not JSON, or cut short"),
        ("b.json", json.dumps(ENTRIES).encode()[:-20], "b.json is not JSON, or cut short"),
        ("c.jsonl.zst", ZstdCompressor().compress(TEXT)[:-20], "c.jsonl.zst is cut short"),
        ("d.jsonl.gz", gzip.compress(TEXT)[:-20], "d.jsonl.gz is damaged, cut short"),
        ("e.parquet", b"PAR1 and no more", "e.parquet cannot be read as a table"),
        ("f.jsonl.zst", b"", "f.jsonl.zst holds no entries"),
    ],
)
def test_half_a_file_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_reference(f"file:{tmp_path / name}")


# -- no energy is corrected twice ---------------------------------------------------------------


def test_final_energies_that_carry_a_correction_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    entry = {"entry_id": "x", "composition": {"Li": 2, "O": 1}, "energy": -14.2, "correction": -0.7}
    path.write_text(json.dumps(entry))
    (tmp_path / "e.reference.json").write_text('{"corrected": true}')
    with pytest.raises(InputError, match=r"'x' carries a correction of -0.700 eV.*count twice"):
        load_reference(f"file:{path}")


def test_uncorrected_entries_say_what_to_do_for_dft_and_for_chgnet(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    entry = {"entry_id": "x", "composition": {"Li": 2, "O": 1}, "energy": -14.2, "correction": 0.0}
    path.write_text(json.dumps(entry))
    with pytest.raises(InputError, match=r"Compatibility.*CHGNet's.*in e.reference.json") as caught:
        load_reference(f"file:{path}")
    assert '"corrected": true' in str(caught.value)
