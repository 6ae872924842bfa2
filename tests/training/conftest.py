"""Rows of a training corpus."""

from collections.abc import Callable

import pytest

from hullward.tools.crystal.text import parse_asymmetric_text, write_cell_text
from hullward.training.crystals import CrystalRow


@pytest.fixture(scope="session")
def rock_salt() -> Callable[[str, str, float], CrystalRow]:
    """A function that makes a row of a rock salt: metal, anion, cube edge in Å."""

    def row(metal: str, anion: str, a: float) -> CrystalRow:
        text = f"225\n{metal} 4 4a\n{anion} 4 4b\n{a:.1f}"
        return CrystalRow(
            material_id=f"{metal}{anion}",
            formula=f"{metal}{anion}",
            space_group=225,
            e_above_hull_ev_per_atom=0.01,
            n_sites=2,
            unit_text=text,
            cell_text=write_cell_text(parse_asymmetric_text(text)),
        )

    return row
