"""Heights of energies computed elsewhere: the command, the grand potential, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.phase_diagram import (
    GrandPotentialPhaseDiagram,
    GrandPotPDEntry,
    PhaseDiagram,
)
from pymatgen.core import Composition, Element
from pymatgen.entries.computed_entries import ComputedEntry
from typer.testing import CliRunner

from hullward.agents.cli.app import app
from hullward.models.errors import HullwardError, InputError, PreflightError
from hullward.tools.hull import OpenHull, Phase, Reference
from hullward.tools.reference import judge_entries, load_reference, parse_open
from hullward.tools.reference.sources import read_entries

# Invented energies, eV per formula; oxides carry a correction as MP2020's do.
ENERGIES = {
    "Li": -1.9,
    "Fe": -8.4,
    "O2": -9.9,
    "Li2O": -14.2,
    "Li2O2": -19.3,
    "FeO": -15.5,
    "Fe2O3": -40.2,
    "Fe3O4": -55.4,
    "LiFeO2": -27.6,
    "Li5FeO4": -56.3,
    "LiFe": -10.1,
}
CANDIDATES = {"LiFe5O8": -112.0, "Li2FeO3": -35.0, "LiFeO3": -31.5, "Fe": -8.3, "Li3Fe": -13.0}


def entry(formula: str, energy: float, name: str = "") -> dict[str, Any]:
    amounts = Composition(formula).get_el_amt_dict()
    oxide = "O" in amounts and len(amounts) > 1
    return {
        "entry_id": name or f"e-{formula}",
        "composition": amounts,
        "energy": energy + (0.7 if oxide else 0.0),
        "correction": -0.7 if oxide else 0.0,
    }


def pymatgen_entries(energies: dict[str, float]) -> list[ComputedEntry]:
    return [ComputedEntry(Composition(f), e, entry_id=f"e-{f}") for f, e in energies.items()]


def write(path: Path, energies: dict[str, float]) -> Path:
    path.write_text("\n".join(json.dumps(entry(f, e)) for f, e in energies.items()))
    return path


@pytest.fixture
def known(tmp_path: Path) -> Reference:
    return load_reference(f"file:{write(tmp_path / 'known.jsonl', ENERGIES)}")


def call(*arguments: str | Path) -> str:
    """What a command prints; an error is raised as it is."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, HullwardError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def heights(document: dict[str, Any]) -> dict[str, float]:
    return {row["formula"]: row["e_above_hull_ev_per_atom"] for row in document["results"]}


# -- the command --------------------------------------------------------------------------------


def test_the_command_gives_phase_diagrams_signed_heights_and_products(tmp_path: Path) -> None:
    reference = write(tmp_path / "known.jsonl", ENERGIES)
    asked = write(tmp_path / "asked.json", {})
    asked.write_text(json.dumps([entry(f, e) for f, e in CANDIDATES.items()]))
    answer = json.loads(call("hull", asked, "--reference", f"file:{reference}", "--json"))
    assert answer["reference"]["id"] == "file:known.jsonl"
    assert answer["reference"]["energy_scheme"] == "mp2020-corrected"
    assert answer["reference"]["version"]
    assert "11 computed entries" in answer["reference"]["statement"]
    diagram = PhaseDiagram(pymatgen_entries(ENERGIES))
    assert [row["id"] for row in answer["results"]] == [f"e-{f}" for f in CANDIDATES]
    for row, theirs in zip(answer["results"], pymatgen_entries(CANDIDATES), strict=True):
        parts, height = diagram.get_decomp_and_e_above_hull(theirs, allow_negative=True)
        assert row["e_above_hull_ev_per_atom"] == pytest.approx(height, abs=1e-9)
        assert {p["phase_id"]: p["fraction"] for p in row["decomposition"]} == pytest.approx(
            {e.entry_id: share for e, share in parts.items()}, abs=1e-9
        )
        assert row["energy_ev_per_atom"] == pytest.approx(theirs.energy_per_atom)
        assert row["error"] is None
        assert row["covered"] is True
    assert min(heights(answer).values()) < 0 < max(heights(answer).values())


def test_a_reference_judges_its_own_entries_at_or_above_zero(tmp_path: Path) -> None:
    path = write(tmp_path / "known.jsonl", ENERGIES)
    reference = load_reference(f"file:{path}")
    rows = judge_entries(read_entries(path), reference)["results"]
    stable = {p.phase_id for p in reference.hull("Fe-Li-O").stable_phases}
    assert {row["id"] for row in rows if row["e_above_hull_ev_per_atom"] == 0.0} == stable
    assert all(row["e_above_hull_ev_per_atom"] > 0 for row in rows if row["id"] not in stable)
    assert 3 < len(stable) < len(rows)


def test_the_table_for_people_names_the_reference_and_what_cannot_be_judged(
    tmp_path: Path,
) -> None:
    reference = write(tmp_path / "known.jsonl", ENERGIES)
    asked = write(tmp_path / "asked.jsonl", {"LiFeO2": -27.6, "Na": -1.3})
    shown = call("hull", asked, "--reference", f"file:{reference}").splitlines()
    assert shown[0].startswith("reference: file:known.jsonl ")
    assert "+0.0000  yes      1.000 LiFeO2" in shown[3]
    assert shown[4].endswith("has no phase of Na")


def test_an_element_without_a_reference_is_an_answer_not_a_failure(
    known: Reference, tmp_path: Path
) -> None:
    asked = write(tmp_path / "asked.jsonl", {"Na": -1.3, "LiFeO2": -27.6})
    first, second = judge_entries(read_entries(asked), known)["results"]
    assert first["e_above_hull_ev_per_atom"] is None
    assert first["decomposition"] == []
    assert first["error"] == "reference 'file:known.jsonl' has no phase of Na"
    assert (first["covered"], first["coverage_note"]) == (False, "no phase of Na")
    assert second["e_above_hull_ev_per_atom"] == 0.0


def test_what_the_reference_does_not_cover_says_so(tmp_path: Path) -> None:
    bare = load_reference(f"file:{write(tmp_path / 'b.jsonl', {'Li': -1.9, 'O2': -9.9})}")
    asked = write(tmp_path / "asked.jsonl", {"Li2O": -14.2})
    (row,) = judge_entries(read_entries(asked), bare)["results"]
    assert row["e_above_hull_ev_per_atom"] < 0
    assert row["covered"] is False
    assert "no compound of Li, O" in row["coverage_note"]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("energy_per_atom", lambda f, e: e / Composition(f).num_atoms),
        ("total_energy_ev_per_atom", lambda f, e: e / Composition(f).num_atoms),
    ],
)
def test_a_table_of_total_energies_equals_the_same_entries(
    known: Reference, tmp_path: Path, column: str, values: Any
) -> None:
    asked = tmp_path / "t.csv"
    rows = {"formula": list(CANDIDATES), column: [values(f, e) for f, e in CANDIDATES.items()]}
    pd.DataFrame(rows).to_csv(asked, index=False)
    table = judge_entries(read_entries(asked), known)
    plain = judge_entries(read_entries(write(tmp_path / "a.jsonl", CANDIDATES)), known)
    assert heights(table) == pytest.approx(heights(plain), abs=1e-12)


def test_formation_energies_are_judged_on_the_elements_of_their_scheme(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pd.DataFrame(
        {"formula": ["Li2O", "Li2O", "LiO"], "formation_energy_per_atom": [-2.0, -1.9, -1.0]}
    ).to_csv(path, index=False)
    reference = load_reference(f"file:{path}")
    rows = judge_entries(read_entries(path), reference)["results"]
    assert [row["e_above_hull_ev_per_atom"] for row in rows] == pytest.approx([0.0, 0.1, 0.5])


def test_formation_energies_count_from_the_elements_of_the_reference(
    known: Reference, tmp_path: Path
) -> None:
    zero = {el: min(p.energy_ev_per_atom for p in known.phases(el)) for el in ("Li", "O")}
    (lowest,) = [p for p in known.hull("Li-O").stable_phases if p.formula == "Li2O"]
    formation = lowest.energy_ev_per_atom - (2 * zero["Li"] + zero["O"]) / 3
    path = tmp_path / "t.csv"
    path.write_text(f"formula,formation_energy_per_atom\nLi2O,{formation!r}\n")
    document = judge_entries(read_entries(path), known)
    (row,) = document["results"]
    assert row["e_above_hull_ev_per_atom"] == pytest.approx(0.0, abs=1e-12)
    assert document["entries"]["elements_of_the_reference_as_zero"] == ["Li", "O"]
    assert document["caution"] == ""


def test_total_energies_of_an_unstated_scheme_get_a_caution(
    known: Reference, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("formula,energy_per_atom\nLi2O,-4.7\n")
    assert "raw totals of VASP" in judge_entries(read_entries(path), known)["caution"]
    (tmp_path / "t.reference.json").write_text('{"corrected": true}')
    assert judge_entries(read_entries(path), known)["caution"] == ""


def test_entries_on_another_scheme_are_refused_with_the_remedy(
    known: Reference, tmp_path: Path
) -> None:
    asked = write(tmp_path / "r2.jsonl", {"Li2O": -14.2})
    (tmp_path / "r2.reference.json").write_text('{"energy_scheme": "r2scan"}')
    with pytest.raises(PreflightError, match=r"on 'r2scan'.*Choose a reference on 'r2scan'"):
        judge_entries(read_entries(asked), known)


def test_many_rows_in_any_order_get_their_own_answers(known: Reference, tmp_path: Path) -> None:
    names = [*CANDIDATES, *ENERGIES] * 3
    energies = {**ENERGIES, **CANDIDATES}
    path = tmp_path / "t.csv"
    pd.DataFrame(
        {
            "formula": names,
            "energy_per_atom": [energies[f] / Composition(f).num_atoms for f in names],
        }
    ).to_csv(path, index=False)
    rows = judge_entries(read_entries(path), known)["results"]
    for name, row in zip(names, rows, strict=True):
        composition = Composition(name)
        alone = known.hull(row["chemsys"]).distance(
            composition.get_el_amt_dict(), energies[name] / composition.num_atoms
        )
        assert row["formula"] == composition.reduced_formula
        assert row["e_above_hull_ev_per_atom"] == pytest.approx(
            alone.e_above_hull_ev_per_atom, abs=1e-12
        )


# -- the grand potential ------------------------------------------------------------------------


def grand(energies: dict[str, float], relative: dict[str, float]) -> GrandPotentialPhaseDiagram:
    """pymatgen's, at our potentials turned into its absolute ones."""
    entries = pymatgen_entries(energies)
    zeros = {
        el: min(e.energy_per_atom for e in entries if e.composition.chemical_system == el)
        for el in relative
    }
    return GrandPotentialPhaseDiagram(
        entries, {Element(el): zeros[el] + mu for el, mu in relative.items()}
    )


@pytest.mark.parametrize(
    "relative", [{"O": -1.5}, {"O": 0.0}, {"O": -4.0}, {"Li": -0.5}, {"Li": -1.0, "O": -2.0}]
)
def test_open_elements_agree_with_grand_potential_phase_diagram(
    known: Reference, tmp_path: Path, relative: dict[str, float]
) -> None:
    theirs = grand(ENERGIES, relative)
    asked = write(tmp_path / "asked.jsonl", CANDIDATES)
    answer = judge_entries(read_entries(asked), known, relative)
    for row, plain in zip(answer["results"], pymatgen_entries(CANDIDATES), strict=True):
        entry_there = GrandPotPDEntry(plain, theirs.chempots)
        parts, height = theirs.get_decomp_and_e_above_hull(entry_there, allow_negative=True)
        assert row["e_above_hull_ev_per_atom"] == pytest.approx(height, abs=1e-9)
        assert {p["phase_id"]: p["fraction"] for p in row["decomposition"]} == pytest.approx(
            {e.original_entry.entry_id: share for e, share in parts.items()}, abs=1e-9
        )
    for el, mu in relative.items():
        assert answer["open"][el]["relative_ev_per_atom"] == mu
        assert answer["open"][el]["absolute_ev_per_atom"] == pytest.approx(
            theirs.chempots[Element(el)], abs=1e-12
        )


def test_the_command_opens_a_system_written_as_a_molecule(tmp_path: Path) -> None:
    reference = write(tmp_path / "known.jsonl", ENERGIES)
    asked = write(tmp_path / "asked.jsonl", {"LiFe": -10.1})
    spec = ("hull", asked, "--reference", f"file:{reference}")
    answer = json.loads(call(*spec, "--open", "O2=-1.5", "--json"))
    assert answer["open"]["O"] == {
        "relative_ev_per_atom": -1.5,
        "absolute_ev_per_atom": pytest.approx(-4.95 - 1.5),
    }
    assert {p["formula"] for p in answer["results"][0]["decomposition"]} == {"LiFeO2"}
    assert "open to O: -1.5 eV/atom" in call(*spec, "--open", "O2=-1.5")


def test_an_open_system_is_covered_only_where_its_equilibrium_is(tmp_path: Path) -> None:
    path = write(tmp_path / "k.jsonl", {f: ENERGIES[f] for f in ("Li", "Fe", "O2", "LiFe", "FeO")})
    reference = load_reference(f"file:{path}")
    asked = read_entries(write(tmp_path / "asked.jsonl", {"LiFe": -10.1}))
    assert judge_entries(asked, reference)["results"][0]["covered"]
    (row,) = judge_entries(asked, reference, {"O": -1.0})["results"]
    assert "FeO" in {p["formula"] for p in row["decomposition"]}
    assert row["covered"] is True  # Li, Fe and O each occur in a compound of the file
    without = load_reference(
        f"file:{write(tmp_path / 'w.jsonl', {**ENERGIES, 'Na': -1.3, 'S': -4.1, 'NaFe': -1.0})}"
    )
    sodium = read_entries(write(tmp_path / "na.jsonl", {"NaFe": -1.0}))
    assert judge_entries(sodium, without)["results"][0]["covered"]
    opened = judge_entries(sodium, without, {"S": 0.0})["results"][0]
    assert opened["covered"] is True  # nothing with sulphur is at equilibrium there


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["O2"], "write ELEMENT=EV_PER_ATOM"),
        (["O2=low"], "write ELEMENT=EV_PER_ATOM"),
        (["O2=nan"], "write ELEMENT=EV_PER_ATOM"),
        (["Li2O=-1"], "write ELEMENT=EV_PER_ATOM"),
        (["Xx=-1"], "Xx is no element"),
        (["O2=-1", "O=-2"], "O is given twice"),
    ],
)
def test_a_potential_that_cannot_be_read_is_named(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_open(texts)


@pytest.mark.parametrize(
    ("energies", "opened", "message"),
    [
        ({"Li2O": -14.2}, {"Na": -1.0}, "cannot open the system to Na.*no phase of it"),
        ({"Li2O": -14.2, "O2": -9.9}, {"Li": -1.0, "O": 0.0}, "open elements alone.*stay closed"),
    ],
)
def test_a_system_that_cannot_be_opened_is_refused(
    known: Reference,
    tmp_path: Path,
    energies: dict[str, float],
    opened: dict[str, float],
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        judge_entries(read_entries(write(tmp_path / "a.jsonl", energies)), known, opened)


def test_an_entry_of_open_elements_alone_is_an_answer_among_others(
    known: Reference, tmp_path: Path
) -> None:
    asked = write(tmp_path / "a.jsonl", {"O2": -9.9, "LiFeO2": -27.6})
    first, second = judge_entries(read_entries(asked), known, {"O": -1.5})["results"]
    assert first["error"] == "consists of open elements alone"
    assert second["error"] is None


def test_the_open_hull_itself_refuses_what_makes_no_sense() -> None:
    phases = [
        Phase(phase_id=f, formula=f, composition={f: 1.0}, energy_ev_per_atom=e, source="test")
        for f, e in (("Li", -1.9), ("O", -4.9))
    ]
    with pytest.raises(InputError, match="all elements of Li-O are open"):
        OpenHull(phases, {"Li": 0.0, "O": 0.0})
    with pytest.raises(InputError, match="no phase of it"):
        OpenHull(phases, {"Na": 0.0})
    with pytest.raises(InputError, match="open elements alone"):
        OpenHull(phases, {"O": 0.0}).distances([{"O": 1.0}], [-4.9])


@st.composite
def open_systems(draw: st.DrawFn) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Energies per formula, open potentials, and candidates."""
    elements = draw(st.sampled_from([("Li", "O"), ("Li", "Mn", "O"), ("Li", "Mn", "Fe", "O")]))
    closed = draw(st.integers(1, len(elements) - 1))
    amounts = st.lists(st.integers(0, 4), min_size=len(elements), max_size=len(elements)).filter(
        lambda a: any(a[:closed])
    )
    energy = st.floats(-6, 0)

    def named(rows: list[tuple[list[int], float]]) -> dict[str, float]:
        found = {}
        for a, e in rows:
            pairs = [(el, n) for el, n in zip(elements, a, strict=True) if n]
            found["".join(f"{el}{n}" for el, n in pairs)] = e * sum(a)
        return found

    known = {f"{el}1": draw(energy) for el in elements}
    known |= named(draw(st.lists(st.tuples(amounts, energy), max_size=12)))
    asked = named(draw(st.lists(st.tuples(amounts, energy), min_size=1, max_size=5)))
    return known, {el: draw(st.floats(-4, 1)) for el in elements[closed:]}, asked


@settings(max_examples=60)
@given(open_systems())
def test_random_open_systems_agree_with_grand_potential_phase_diagram(
    system: tuple[dict[str, float], dict[str, float], dict[str, float]],
) -> None:
    known, relative, asked = system
    phases = [
        Phase(
            phase_id=f,
            formula=f,
            composition=Composition(f).get_el_amt_dict(),
            energy_ev_per_atom=e / Composition(f).num_atoms,
            source="test",
        )
        for f, e in known.items()
    ]
    hull = OpenHull(phases, relative)
    ours = hull.distances(
        [Composition(f).get_el_amt_dict() for f in asked],
        [e / Composition(f).num_atoms for f, e in asked.items()],
    )
    if len(hull.elements) > 1:
        theirs = grand(known, relative)
        there = [GrandPotPDEntry(e, theirs.chempots) for e in pymatgen_entries(asked)]
        expected = [theirs.get_decomp_and_e_above_hull(e, allow_negative=True)[1] for e in there]
    else:  # pymatgen draws no diagram of one closed element: the lowest of all is the hull
        potentials = {Element(el): mu for el, mu in hull.absolute_ev_per_atom.items()}
        entries = [GrandPotPDEntry(e, potentials) for e in pymatgen_entries(known)]
        lowest = min(e.energy_per_atom for e in entries if e.composition.num_atoms)
        asked_there = [GrandPotPDEntry(e, potentials) for e in pymatgen_entries(asked)]
        expected = [e.energy_per_atom - lowest for e in asked_there]
    assert [d.e_above_hull_ev_per_atom for d in ours] == pytest.approx(expected, abs=1e-9)


def test_a_reference_of_the_potentials_own_energies_says_so(tmp_path):
    entry = {"composition": {"Na": 1, "Cl": 1}, "energy": -7.0, "correction": -0.6, "entry_id": "a"}
    path = tmp_path / "a.json"
    path.write_text(json.dumps([entry]))
    entries = read_entries(path)
    assert "CHGNet" in judge_entries(entries, load_reference("embedded"))["caution"]
    (tmp_path / "t.csv").write_text("formula,formation_energy_per_atom\nNaCl,-2.0\n")
    assert judge_entries(entries, load_reference(f"file:{tmp_path / 't.csv'}"))["caution"] == ""


def test_a_relaxed_document_that_was_changed_is_refused(tmp_path: Path) -> None:
    cell = [[3.2, 0.0, 0.0], [0.0, 3.2, 0.0], [0.0, 0.0, 3.2]]
    crystal = {"lattice": cell, "species": ["Na", "Cl"], "frac_coords": [[0, 0, 0], [0.5] * 3]}
    source, out = tmp_path / "c.jsonl", tmp_path / "relaxed.json"
    source.write_text(json.dumps(crystal))
    call("relax", source, "--potential", "toy", "--workers", "0", "--out", out)
    document = json.loads(out.read_text())
    (read,) = read_entries(out).phases
    assert read.energy_ev_per_atom == document["results"][0]["energy_ev_per_atom"]
    document["results"][0]["energy_ev_per_atom"] -= 0.5
    out.write_text(json.dumps(document, indent=1))
    with pytest.raises(InputError, match="its checksum differs"):
        read_entries(out)
    del document["sum"]
    out.write_text(json.dumps(document))
    assert len(read_entries(out).phases) == 1
