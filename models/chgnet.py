"""CHGNet (DOI 10.1038/s42256-023-00716-3) behind the potential protocol."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.potential import (
    Evaluation,
    IsolatedAtomError,
    PotentialCard,
    UnsupportedElementError,
)

GPA_PER_EV_PER_A3 = 160.21766208


class ChgnetPotential:
    """The published network with the weights of its own wheel, on the CPU."""

    def __init__(self, card: PotentialCard, weights: Path) -> None:
        """Load weights whose hash the registry has checked."""
        from chgnet.model import CHGNet

        self._card = card
        with contextlib.redirect_stdout(io.StringIO()):  # it introduces itself
            # as CHGNet.load would: the bias existed only in version 0.2.0
            model = CHGNet.from_file(str(weights), mlp_out_bias=False, version=card.name)
        self._model = model.eval()

    @property
    def card(self) -> PotentialCard:
        return self._card

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation | Exception]:
        """As `hullward.models.potential.Potential.evaluate`."""
        return [self._evaluate_one(crystal) for crystal in crystals]

    def _evaluate_one(self, crystal: Crystal) -> Evaluation | Exception:
        unknown = set(crystal.species) - self._card.elements
        if unknown:
            return UnsupportedElementError(
                f"{self._card.name} was not trained on {', '.join(sorted(unknown))}"
            )
        structure = crystal.to_structure()
        cutoff = float(self._model.graph_converter.atom_graph_cutoff)
        # looked for here: the published converter reads past an empty neighbour list
        centres = structure.get_neighbor_list(cutoff, numerical_tol=1e-8)[0]
        if len(np.unique(centres)) < crystal.n_atoms:
            return IsolatedAtomError(f"an atom has no neighbour within {cutoff:g} Å")
        try:
            answer = self._model.predict_structure(structure, task="efsm")
        except RuntimeError as error:
            if "memory" in str(error).lower():
                return MemoryError(str(error))
            return error
        except (ValueError, ArithmeticError, MemoryError) as error:
            return error
        return Evaluation(
            energy_ev_per_atom=float(answer["e"]),
            forces_ev_per_a=answer["f"].astype(float),
            stress_ev_per_a3=answer["s"].astype(float) / GPA_PER_EV_PER_A3,
            magmoms_mu_b=answer["m"].astype(float),
        )
