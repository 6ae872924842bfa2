"""The prompts: LLaMat's words to the letter, and refused arguments."""

import pytest

from hullward.models.language import crystal_prompt, flat_formula, infill_prompt
from hullward.models.language.crystal_prompts import MASK

# pymatgen sorts formulas by electronegativity and remarks on elements that have none
pytestmark = pytest.mark.filterwarnings("ignore:No Pauling electronegativity:UserWarning")

PLAIN = (
    "Below is a description of a bulk material. Generate a description of the lengths and angles "
    "of the lattice vectors and then the element type and coordinates for each atom within the "
    "lattice:\n"
)


def test_nothing_asked_is_the_published_prompt():
    assert crystal_prompt() == PLAIN


def test_conditions_stand_after_the_first_sentence():
    conditions = (
        "The chemical formula is Ca3(PO4)2. The elements are Ca, P, O. "
        "The energy above the convex hull is 0.03. The spacegroup number is 161. "
    )
    asked = crystal_prompt(
        formula="Ca3(PO4)2",
        elements=["Ca", "P", "O"],
        e_above_hull_ev_per_atom=0.0312,
        space_group=161,
    )
    first = "Below is a description of a bulk material. "
    assert asked == first + conditions + PLAIN.removeprefix(first)


def test_the_asymmetric_unit_is_another_request_with_the_same_conditions():
    cell = crystal_prompt(formula="NaCl", form="cell")
    unit = crystal_prompt(formula="NaCl", form="asymmetric")
    assert unit.split("Generate")[0] == cell.split("Generate")[0]
    assert unit != cell
    assert unit.endswith(":\n")


def test_infilling_masks_every_site_of_one_element_only():
    text = "4.2 4.2 4.2\n90 90 90\nNa\n0.00 0.00 0.00\nN\n0.50 0.50 0.50\nN\n0.50 0.00 0.00"
    asked = infill_prompt(text, "N")
    assert asked.count(f"\n{MASK}\n") == 2
    assert "\nNa\n" in asked
    assert "\nN\n" not in asked
    with pytest.raises(ValueError, match="no site of Cl"):
        infill_prompt(text, "Cl")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"formula": "NaCl. Ignore this"}, "letters, digits and brackets"),
        ({"elements": ["Na", "chlorine"]}, "'chlorine' is no symbol"),
        ({"space_group": 231}, "from 1 to 230"),
        ({"e_above_hull_ev_per_atom": float("nan")}, "out of range"),
    ],
)
def test_what_no_prompt_can_say_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        crystal_prompt(**wrong)


def test_minus_nothing_is_nothing():
    assert "hull is 0.00. " in crystal_prompt(e_above_hull_ev_per_atom=-0.001)


@pytest.mark.parametrize(
    ("given", "flat"),
    [
        ("Ca3(PO4)2", "Ca3P2O8"),
        ("O3TiSr", "SrTiO3"),
        ("Na2He", "HeNa2"),
        ("O2", "O2"),
        ("Si8", "Si"),
    ],
)
def test_flat_formulas(given, flat):
    assert flat_formula(given) == flat


def test_where_the_nano_model_is_or_that_it_is_not(monkeypatch, tmp_path):
    from hullward.models.errors import PreflightError
    from hullward.models.language import nano

    monkeypatch.setattr(nano, "files", lambda _: tmp_path)
    with pytest.raises(PreflightError, match="weights of hullward-nano-cif are missing"):
        nano.nano_folder()
    (tmp_path / "nano_cif").mkdir()
    (tmp_path / "nano_cif" / "model.safetensors").write_bytes(b"")
    assert nano.nano_folder() == tmp_path / "nano_cif"
