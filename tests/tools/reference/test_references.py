"""References: what a file may hold, what is refused and why, and what each one covers."""

import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest
from pymatgen.core import Composition

from hullward.models.errors import InputError, PreflightError
from hullward.models.potential import PotentialCard, load_potential, potential_card
from hullward.tools.hull import MP2020, Reference, check_compatible
from hullward.tools.records import Protocol
from hullward.tools.reference import load_reference
from hullward.tools.reference.sources import (
    BuiltPhases,
    Manifest,
    SystemTried,
    mp2020_elements,
    served_class,
)

CARD = PotentialCard(
    name="chgnet-0.3.0",
    weights_sha256="a" * 64,
    energy_scheme=MP2020,
    elements=frozenset({"Li", "O"}),
    typical_error_ev_per_atom=0.06,
    typical_error_source="test",
)


def entry(formula: dict[str, float], energy: float, **more: object) -> dict[str, object]:
    return {
        "@module": "os",  # never imported
        "@class": "system",
        "composition": formula,
        "energy": energy,
        "correction": 0.0,
        "entry_id": f"e-{'-'.join(formula)}-{energy}",
        "parameters": {"run_type": "GGA"},
        **more,
    }


LI, O2 = entry({"Li": 2}, -3.8), entry({"O": 2}, -9.9)
LI2O = entry({"Li": 2, "O": 1}, -13.5, correction=-0.7)


def write_entries(path, entries):
    path.write_text(json.dumps(entries), encoding="utf-8")
    return load_reference(f"file:{path}")


def write_table(path, **columns):
    pd.DataFrame(columns).to_csv(path, index=False)
    return load_reference(f"file:{path}")


# -- ComputedEntry files ------------------------------------------------------------------------


def test_entries_are_read_with_their_corrections(tmp_path):
    reference = write_entries(tmp_path / "e.json", [LI, O2, LI2O])
    energies = {p.formula: p.energy_ev_per_atom for p in reference.phases("Li-O")}
    assert energies == pytest.approx({"Li": -1.9, "O2": -4.95, "Li2O": -14.2 / 3})
    assert reference.kind == "file"
    assert reference.energy_scheme == MP2020


@pytest.mark.parametrize("wrap", [lambda e: {"entries": e}, lambda e: [{"entry": x} for x in e]])
def test_common_wrappings_of_entries_are_opened(tmp_path, wrap):
    reference = write_entries(tmp_path / "e.json", wrap([LI, O2, LI2O]))
    assert len(reference.phases("Li-O")) == 3


def test_json_lines_equal_a_json_list(tmp_path):
    listed = write_entries(tmp_path / "e.json", [LI, O2, LI2O])
    (tmp_path / "e.jsonl").write_text("\n".join(map(json.dumps, [LI, O2, LI2O])))
    lines = load_reference(f"file:{tmp_path / 'e.jsonl'}")
    assert [p.energy_ev_per_atom for p in lines.phases("Li-O")] == [
        p.energy_ev_per_atom for p in listed.phases("Li-O")
    ]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({**LI2O, "correction": 0.0}, "no correction.*MaterialsProject2020Compatibility"),
        ({**LI2O, "parameters": {"run_type": "r2SCAN"}}, "run type r2SCAN"),
        (
            {**LI2O, "energy_adjustments": [{"name": "MP Anion Correction"}]},
            "legacy 'MP Anion Correction'",
        ),
        ({**LI2O, "entry_id": LI["entry_id"]}, "occurs with two energies"),
        ({**LI2O, "composition": {"Xx": 1}}, "'Xx' is no element"),
        ({**LI2O, "composition": {}}, "holds no element"),
        ({**LI2O, "energy": "low"}, "not a ComputedEntry"),
        ({**LI2O, "energy": float("nan")}, "not a ComputedEntry"),
        ({"energy": -1.0}, "not a ComputedEntry"),
    ],
)
def test_an_entry_that_cannot_be_used_is_refused(tmp_path, bad, message):
    with pytest.raises(InputError, match=message):
        write_entries(tmp_path / "e.json", [LI, O2, bad])


def test_a_sidecar_may_declare_what_the_entries_do_not_show(tmp_path):
    (tmp_path / "e.reference.json").write_text('{"corrected": true, "complete": true}')
    reference = write_entries(tmp_path / "e.json", [LI, O2, {**LI2O, "correction": 0.0}])
    assert reference.coverage({"Li": 1, "O": 1}) == (True, "e.json is stated to be complete")


def test_a_sidecar_with_an_unknown_key_is_refused(tmp_path):
    (tmp_path / "e.reference.json").write_text('{"scheme": "x"}')
    with pytest.raises(InputError, match="may state: energy_scheme"):
        write_entries(tmp_path / "e.json", [LI, O2])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.json", "{", "is not JSON"),
        ("e.json", "[]", "no entries"),
        ("e.json", "[1, 2]", "expected a list"),
        ("e.txt", "x", "known endings"),
        ("t.csv", "a,b\n1,2\n", "needs a column of formulas"),
        ("t.csv", "formula,formation_energy_per_atom\nLi2O,low\n", "formation_energy_per_atom"),
        ("t.csv", "formula,formation_energy_per_atom\nLi2O,\n", "row 0 is not a number"),
        ("t.csv", "formula,formation_energy_per_atom\nXx2O,-1\n", "row 0: .*'Xx' is no element"),
        ("t.csv", "formula,formation_energy_per_atom\n12,-1\n", "is no formula"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        load_reference(f"file:{tmp_path / name}")


# -- tables -------------------------------------------------------------------------------------


def test_formation_energies_become_energies_with_the_elements_of_their_own_scheme(tmp_path):
    reference = write_table(tmp_path / "t.csv", formula=["Li2O"], formation_energy_per_atom=[-2.0])
    zero = mp2020_elements()
    expected = -2.0 + (2 * zero["Li"] + zero["O"]) / 3
    distance = reference.hull("Li-O").distance({"Li": 2, "O": 1}, expected)
    assert distance.e_above_hull_ev_per_atom == pytest.approx(0.0, abs=1e-12)
    assert "assumed for tables" in reference.statement


def test_rows_that_are_no_phases_support_the_hull_only(tmp_path):
    reference = write_table(
        tmp_path / "t.csv",
        formula=["Li2O", "LiO"],
        formation_energy_per_atom=[-2.0, -1.5],
        is_phase=[True, False],
    )
    assert {p.formula for p in reference.phases("Li-O") if p.is_phase} == {"Li", "O2", "Li2O"}
    products = reference.hull("Li-O").decompose({"Li": 1, "O": 1})
    assert {p.formula for p in products} == {"Li2O", "O2"}


def test_a_table_on_another_scheme_is_refused(tmp_path):
    (tmp_path / "t.reference.json").write_text('{"energy_scheme": "r2scan"}')
    with pytest.raises(InputError, match="need that scheme's element energies"):
        write_table(tmp_path / "t.csv", formula=["Li2O"], formation_energy_per_atom=[-2.0])


def test_the_whole_database_table_gives_any_system(shared_data):
    path = shared_data / "hull" / "mp2020_whole_database_hull.parquet"
    reference = load_reference(f"file:{path}")
    zero = mp2020_elements()
    for formula, height in [({"Fe": 2, "O": 3}, -1.707096), ({"Mn": 2, "O": 3}, -2.01392)]:
        energy = height + sum(zero[el] * n for el, n in formula.items()) / 5
        system = "-".join(sorted(formula))
        distance = reference.hull(system).distance(formula, energy)
        assert distance.e_above_hull_ev_per_atom == pytest.approx(0.0, abs=1e-6)
    assert all(p.is_phase for p in reference.hull("Fe-O").stable_phases)
    assert {p.formula for p in reference.phases("Li") if p.is_phase} == {"Li"}


def test_real_mp_entries_pass_the_check_for_corrections(shared_data):
    path = shared_data / "hull" / "mp_entries_Li-Fe-O_2021.jsonl.zst"
    reference = load_reference(f"file:{path}")
    assert len(reference.hull("Li-Fe-O").stable_phases) == 11
    assert len(reference.library_entries("Li-Fe-O")) == 375


# -- names, versions, compatibility -------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("embeded", "did you mean 'embedded'"),
        ("materials", "known: 'embedded', 'file:PATH'"),
        ("file:/no/such/file.json", "no reference file"),
    ],
)
def test_an_unknown_reference_names_the_known_ones(spec, message):
    with pytest.raises(InputError, match=message):
        load_reference(spec)


def test_a_path_without_its_prefix_is_recognised(tmp_path):
    (tmp_path / "e.json").write_text("[]")
    with pytest.raises(InputError, match="write 'file:"):
        load_reference(str(tmp_path / "e.json"))


def test_the_version_follows_the_content(tmp_path):
    first = write_entries(tmp_path / "e.json", [LI, O2, LI2O]).version
    assert write_entries(tmp_path / "e.json", [LI, O2, LI2O]).version == first
    assert write_entries(tmp_path / "e.json", [LI, O2]).version != first
    (tmp_path / "e.reference.json").write_text('{"complete": true}')
    assert write_entries(tmp_path / "e.json", [LI, O2, LI2O]).version != first


def built(**changes) -> Reference:
    facts = {
        "reference_id": "embedded",
        "version": "v",
        "kind": "embedded",
        "energy_scheme": MP2020,
        "statement": "",
        "potential_sha256": CARD.weights_sha256,
        "protocol": Protocol(fmax_ev_per_a=0.02),
        "source": BuiltPhases([], MANIFEST),
    }
    return Reference(**{**facts, **changes})


def tried(**structures: int) -> SystemTried:
    return SystemTried(
        expected_formulas=tuple(structures), tried_formulas=structures, force_calls=0, cpu_s=0
    )


MANIFEST = Manifest(
    recipe="test",
    types="",
    statement="",
    potential="chgnet-0.3.0",
    potential_sha256=CARD.weights_sha256,
    energy_scheme=MP2020,
    protocol=Protocol(),
    systems={
        "Li": tried(Li=30),
        "Li-O": tried(Li2O=50),
        "Mn-O": tried(MnO=50, MnO2=50, Mn2O3=40, Mn3O4=12, Mn3O5=3),
        "Li-Mn-O": tried(LiMnO2=20, Li2MnO3=3, LiMn2O4=9, LiMn2O3=3, Li3MnO3=2),
        "Fe-O": tried(FeO=50, Fe2O3=3, Fe3O4=2, Fe3O5=2, Fe4O5=0),
        "Al-Ni": tried(AlNi=50, AlNi3=50),
    },
    deep={},
    force_calls=0,
    cpu_s=0.0,
)


def test_a_fitting_pair_passes():
    check_compatible(built(), CARD, Protocol(fmax_ev_per_a=0.05))
    check_compatible(built(), CARD, Protocol(fmax_ev_per_a=0.02))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"energy_scheme": "r2scan"}, "'r2scan'.*chgnet-0.3.0 predicts 'mp2020-corrected'"),
        ({"potential_sha256": "b" * 64}, "Use the same checkpoint"),
        ({"protocol": Protocol(fmax_ev_per_a=0.1)}, "fmax 0.1 eV/Å.*0.05"),
    ],
)
def test_a_pair_that_does_not_compare_is_refused_with_the_remedy(changes, message):
    with pytest.raises(PreflightError, match=message):
        check_compatible(built(**changes), CARD, Protocol(fmax_ev_per_a=0.05))


# -- coverage -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("composition", "covered"),
    [
        ({"Li": 1}, True),
        ({"Li": 2, "O": 1}, True),
        ({"Li": 1, "Mn": 2, "O": 4}, True),  # mixed valence
        ({"Li": 2, "O": 2}, False),  # peroxide
        ({"Li": 1, "O": 2}, False),  # superoxide
        ({"Mn": 4, "O": 1}, False),  # metal-rich
        ({"Li": 1, "Mn": 1}, False),  # alloy of a system that was not built
        ({"Al": 2, "Ni": 2}, True),  # alloy of a formula that was tried
        ({"Al": 3, "Ni": 5}, False),  # and of one that was not
        ({"Fe": 2, "O": 3}, False),  # two of five expected formulas had structures enough
        ({"Fe": 1, "Mn": 1, "O": 2}, False),  # Fe-Mn-O was not built
    ],
)
def test_coverage_of_a_built_reference(composition, covered):
    answer = BuiltPhases([], MANIFEST).coverage(composition, [])
    assert answer.covered is covered
    assert answer.note


@pytest.mark.parametrize(
    ("formula", "served"),
    [
        ("Fe3O4", True),
        ("LiFePO4", True),  # orthophosphate
        ("AlNi3", True),
        ("GaAs", True),
        ("SiO2", True),
        ("FeO3", False),  # higher than common states go
        ("LiPO3", False),  # condensed phosphate
        ("Fe2P2O7", False),
        ("CaSiO3", False),  # condensed silicate
        ("CaCO3", False),
        ("Na2SO4", False),
        ("PCl5", False),  # molecule
        ("LiH2O2", False),
        ("LaOF", False),  # two anions
        ("Al4C3", True),
        ("CaC2", False),  # carbon bonded to carbon
        ("CeC2", False),
        ("Li2C2", False),
    ],
)
def test_served_classes_need_no_reference(formula, served):
    amounts = Composition(formula).get_el_amt_dict()
    assert served_class(amounts).covered is served


def test_a_file_without_a_compound_of_an_element_does_not_cover_it(tmp_path):
    reference = write_entries(tmp_path / "e.json", [LI, O2])
    assert not reference.coverage({"Li": 2, "O": 1}).covered
    whole = write_entries(tmp_path / "w.json", [LI, O2, LI2O])
    assert whole.coverage({"Li": 2, "O": 1}).covered
    assert "makes no statement" in whole.coverage({"Li": 2, "O": 1}).note


def test_an_element_without_a_phase_is_never_covered(tmp_path):
    reference = write_entries(tmp_path / "e.json", [LI, O2, LI2O])
    assert reference.coverage({"Na": 1, "O": 1}) == (False, "no phase of Na")
    with pytest.raises(InputError, match="no phase of Na"):
        reference.hull("Na-O")


# -- what is shipped ----------------------------------------------------------------------------


def test_data_files_are_those_their_registry_describes():
    folder = files("hullward.data")
    table = re.findall(
        r"^\| (\S+) \|.*`([0-9a-f]{64})` \|$", (folder / "README.md").read_text("utf-8"), re.M
    )
    assert {"reference_embedded.parquet", "mp2020_elements.json"} <= {name for name, _ in table}
    for name, digest in table:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


def test_the_embedded_reference_is_sound():
    """No phase below its hull, none far above, each with a structure of its formula."""
    reference = load_reference("embedded")
    assert reference.energy_scheme == MP2020
    assert len(reference.elements) >= 80
    check_compatible(reference, potential_card("chgnet-0.3.0"), Protocol())
    everything = reference.phases("-".join(sorted(reference.elements)))
    assert len({p.phase_id for p in everything}) == len(everything) > 1000
    assert all(p.crystal is not None and p.crystal.formula == p.formula for p in everything)
    assert all(4 < p.crystal.volume_per_atom_a3 < 130 for p in everything)
    by_system = {"-".join(sorted(p.elements)) for p in everything}
    for system in sorted(by_system):
        hull = reference.hull(system)
        own = [p for p in reference.phases(system) if p.elements == frozenset(hull.elements)]
        heights = [hull.distance(p.composition, p.energy_ev_per_atom)[0] for p in own]
        assert -1e-9 <= min(heights) <= max(heights) <= 0.1 + 1e-9, system


@pytest.mark.parametrize(
    ("formula", "covered"),
    [
        ({"Li": 1, "Mn": 1, "O": 2}, True),
        ({"Li": 2, "Mn": 1, "O": 3}, True),
        ({"Fe": 2, "O": 3}, True),
        ({"Na": 1, "Cl": 1}, True),
        ({"Cs": 1}, True),
        ({"Li": 2, "O": 2}, False),  # peroxide
        ({"Li": 1, "Fe": 1}, False),  # alloy
        ({"Fe": 1, "P": 3, "O": 9}, False),  # condensed phosphate
        ({"K": 1, "Mn": 1, "Ge": 1, "N": 3}, False),  # not built
        ({"Po": 1, "O": 2}, False),  # no element
    ],
)
def test_what_the_embedded_reference_covers(formula, covered):
    assert load_reference("embedded").coverage(formula).covered is covered


@pytest.mark.parametrize(
    ("system", "stable"),
    [
        ("Li-Mn-O", "Li2O Li2O2 MnO Mn3O4 Mn2O3 MnO2 Li2MnO3 LiMnO2 LiMn2O4"),
        ("Li-Fe-P-O", "LiFePO4 FePO4 Li3PO4 Fe2O3 FeO LiFeO2"),
        ("Ca-Ti-O", "CaO TiO2 CaTiO3"),
        ("Na-Cl", "NaCl"),
        ("Al-N", "AlN"),
        ("Zn-S", "ZnS"),
        ("Ca-F", "CaF2"),
    ],
)
def test_what_chemists_know_to_be_stable_lies_on_the_embedded_hull(system, stable):
    hull = load_reference("embedded").hull(system)
    assert set(stable.split()) <= {p.formula for p in hull.stable_phases}


def test_embedded_energies_are_chgnets_own_with_no_further_correction():
    """Energies of the packaged weights at the stored structures, to 1 meV/atom."""
    potential = load_potential("chgnet-0.3.0")
    wanted = {"Li2O#1", "Fe2O3#1", "LiMnO2#1"}
    reference = load_reference("embedded")
    phases = [*reference.phases("Li-Mn-O"), *reference.phases("Fe-O")]
    for p in (p for p in phases if p.phase_id in wanted):
        answer = potential.evaluate([p.crystal])[0]
        assert answer.energy_ev_per_atom == pytest.approx(p.energy_ev_per_atom, abs=1e-3)


def test_a_damaged_file_or_sidecar_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.zst").write_bytes(b"junk")
    with pytest.raises(InputError, match="not Zstandard"):
        load_reference(f"file:{tmp_path / 'a.jsonl.zst'}")
    (tmp_path / "b.jsonl").write_text("{}")
    (tmp_path / "b.reference.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="energy_scheme"):
        load_reference(f"file:{tmp_path / 'b.jsonl'}")


@pytest.mark.parametrize(("word", "real"), [("yes", True), ("False", False), ("0", False)])
def test_is_phase_may_be_a_word(word: str, real: bool, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"formula,formation_energy_per_atom,is_phase\nLi2O,-2.0,{word}\n")
    (phase,) = [p for p in load_reference(f"file:{path}").phases("Li-O") if len(p.elements) == 2]
    assert phase.is_phase is real


def test_is_phase_that_is_neither_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("formula,formation_energy_per_atom,is_phase\nLi2O,-2.0,perhaps\n")
    with pytest.raises(InputError, match="is_phase must be true or false"):
        load_reference(f"file:{path}")
