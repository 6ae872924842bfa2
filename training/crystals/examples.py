"""What a generator learns from one crystal: a prompt and the right answer.

The conditions in the prompt, the text form, the choice of cell and its translation are all drawn
from (seed, epoch, row). A run that was stopped therefore goes on with exactly the examples that it
would have seen.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.language import TextForm, crystal_prompt, infill_prompt
from hullward.tools.crystal.text import parse_cell_text, write_cell_text
from hullward.training.crystals.corpus import CrystalRow
from hullward.training.engine import Example

SHARES = (
    "asymmetric", "infill", "formula", "elements", "space_group", "e_above_hull", "nothing",
    "substituted",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Shares of the kinds of prompt. Conditions are drawn independently; a prompt may have several.

    Raises ValueError for a share outside 0..1.
    """

    asymmetric: float = 0.0  # in the asymmetric form (B); the others in the cell form (A)
    infill: float = 0.0  # of those in the cell form
    formula: float = 0.8
    elements: float = 0.1  # where the prompt has no formula
    space_group: float = 0.4
    e_above_hull: float = 0.15  # where known
    max_cell_sites: int = 500  # larger cells use the asymmetric form, where it is used at all
    nothing: float = 0.0  # no condition at all; in the cell form where the cell is small enough
    substituted: float = 0.0  # of crystals, with elements exchanged for similar ones first
    cell: Literal["standard", "niggli"] = "standard"
    random_translation: bool = False
    sort_sites: bool = True  # by element, as in the formula; otherwise shuffled
    learn_prompt: bool = False  # True: as Gruver et al., whose loss covers the whole text

    def __post_init__(self) -> None:
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"mixture: {name} is a share of 0 to 1, found {getattr(self, name)}"
                )


def example(row: CrystalRow, mixture: Mixture, seed: int, epoch: int, index: int) -> Example:
    """The example of row `index` in an epoch."""
    rng = random.Random(f"{seed}:{epoch}:{index}")
    form: TextForm = "asymmetric" if rng.random() < mixture.asymmetric else "cell"
    nothing = mixture.nothing > 0 and rng.random() < mixture.nothing
    if nothing:
        form = "cell"
    if mixture.asymmetric and row.n_sites > mixture.max_cell_sites:
        form = "asymmetric"
    if form == "cell":
        text = _cell_text(row, mixture, rng)
        if not nothing and rng.random() < mixture.infill:
            element = rng.choice(sorted(set(text.split("\n")[2::2])))
            return Example(infill_prompt(text, element), element, mixture.learn_prompt)
    else:
        text = row.unit_text
    if nothing:
        return Example(crystal_prompt(form=form), text, mixture.learn_prompt)
    names_formula = rng.random() < mixture.formula
    names_elements = not names_formula and rng.random() < mixture.elements
    names_group = rng.random() < mixture.space_group
    names_height = rng.random() < mixture.e_above_hull
    prompt = crystal_prompt(
        formula=row.formula if names_formula else None,
        elements=list(dict.fromkeys(row.cell_text.split("\n")[2::2])) if names_elements else (),
        e_above_hull_ev_per_atom=row.e_above_hull_ev_per_atom if names_height else None,
        space_group=row.space_group if names_group else None,
        form=form,
    )
    return Example(prompt, text, mixture.learn_prompt)


def _cell_text(row: CrystalRow, mixture: Mixture, rng: random.Random) -> str:
    """The cell form, with the mixture's choice of cell, translation and order of sites."""
    if mixture.cell == "standard" and not mixture.random_translation and mixture.sort_sites:
        return row.cell_text
    found = parse_cell_text(row.cell_text)
    assert isinstance(found, Crystal)  # the corpus wrote it
    if mixture.cell == "niggli":
        structure = found.to_structure().get_reduced_structure("niggli")
        found = Crystal.from_structure(structure)
    coords = np.array(found.frac_coords)
    if mixture.random_translation:
        coords = coords + np.array([rng.random() for _ in range(3)])
    order = list(range(found.n_atoms))
    if mixture.sort_sites:
        kinds = list(dict.fromkeys(found.species))
        order.sort(key=lambda i: kinds.index(found.species[i]))
    else:
        rng.shuffle(order)
    return write_cell_text(
        Crystal.from_arrays(found.lattice, [found.species[i] for i in order], coords[order])
    )
