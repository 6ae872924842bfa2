"""Energies still mean what references take them to mean, and elements that are off say so."""

from dataclasses import dataclass, replace

import pytest

from hullward.models.errors import PreflightError
from hullward.models.potential import load_potential, potential_card
from hullward.tools.records import Product
from hullward.tools.reference import check_canaries, element_offsets, load_reference, offset_note
from hullward.tools.reference.energy_check import CANARIES, has_canaries, require_canaries


@dataclass
class Shifted:
    """CHGNet whose energies have moved, as another checkpoint's or library's would."""

    by_ev_per_atom: float

    def __post_init__(self):
        self.card = potential_card("chgnet-0.3.0")

    def evaluate(self, crystals):
        answers = load_potential("chgnet-0.3.0").evaluate(crystals)
        moved = self.by_ev_per_atom
        return [replace(a, energy_ev_per_atom=a.energy_ev_per_atom + moved) for a in answers]


class Broken(Shifted):
    def evaluate(self, crystals):
        return [ValueError("no kernel") for _ in crystals]


def test_the_packaged_weights_give_every_canary_its_energy():
    found = check_canaries(load_potential("chgnet-0.3.0"))
    assert [r.formula for r in found] == list(CANARIES)
    assert all(r.alive for r in found)
    require_canaries(load_potential("chgnet-0.3.0"))


@pytest.mark.parametrize(
    ("potential", "message"),
    [
        (Shifted(0.002), r"NaCl -3\.\d+ instead of -3\.\d+ eV/atom"),
        (Broken(0.0), "NaCl fails .ValueError: no kernel"),
    ],
)
def test_a_changed_potential_is_refused_with_the_remedy(potential, message):
    with pytest.raises(PreflightError, match=message):
        require_canaries(potential)


def test_only_the_weights_the_reference_was_made_with_have_canaries():
    assert has_canaries(potential_card("chgnet-0.3.0"))
    assert not has_canaries(potential_card("toy"))


def test_offsets_of_elements_are_those_known_of_chgnet():
    """Fe, Li and O over MP2020 as first measured on 2026-11-22: +113, +26 and +33 meV/atom."""
    offsets = element_offsets()
    assert len(offsets) >= 80
    assert offsets["Fe"] == pytest.approx(0.113, abs=0.003)
    assert offsets["Li"] == pytest.approx(0.026, abs=0.003)
    assert offsets["O"] == pytest.approx(0.033, abs=0.005)


def test_a_decomposition_into_an_element_that_is_off_says_so(tmp_path):
    (tmp_path / "mp.csv").write_text("formula,formation_energy_per_atom\nFe2O3,-1.7\n")
    theirs, ours = load_reference(f"file:{tmp_path / 'mp.csv'}"), load_reference("embedded")
    iron = Product(phase_id="element-Fe", formula="Fe", fraction=0.4)
    oxygen = Product(phase_id="element-O", formula="O2", fraction=0.6)
    assert "Fe (+113 meV/atom)" in offset_note([iron, oxygen], theirs)
    assert offset_note([oxygen], theirs) == ""  # 30 meV/atom
    assert offset_note([iron], ours) == ""  # errors cancel
