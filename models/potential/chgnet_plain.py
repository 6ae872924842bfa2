"""CHGNet checkpoints of another layout, run by the package's own network: slow, for few structures.

`hullward.models.potential.chgnet` is the same function made fast, for the layout of 0.3.0 only.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.potential.protocol import (
    Evaluation,
    IsolatedAtomError,
    PotentialCard,
    UnsupportedElementError,
)

GPA_PER_EV_PER_A3 = 160.21766208


class PlainChgnet:
    """A published checkpoint as the package runs it."""

    def __init__(self, card: PotentialCard, weights: Path, device: str, *, mlp_out_bias: bool):
        """Load weights whose hash the registry has checked."""
        from chgnet.model import CHGNet

        self._card = card
        with contextlib.redirect_stdout(io.StringIO()):  # it introduces itself
            model = CHGNet.from_file(str(weights), mlp_out_bias=mlp_out_bias, version=card.name)
        self._model = model.to(device).eval()

    @property
    def card(self) -> PotentialCard:
        return self._card

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation | Exception]:
        """As `hullward.models.potential.protocol.Potential.evaluate`."""
        return [self._one(crystal) for crystal in crystals]

    def _one(self, crystal: Crystal) -> Evaluation | Exception:
        if unknown := sorted(set(crystal.species) - self._card.elements):
            return UnsupportedElementError(
                f"{self._card.name} was not trained on {', '.join(unknown)}"
            )
        try:
            graph = self._model.graph_converter(crystal.to_structure())
        except ValueError as error:  # it raises this for atoms without neighbours
            return IsolatedAtomError(str(error))
        if graph is None:
            return IsolatedAtomError("an atom has no neighbour within the cut-off")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's, of the package's own habits
            said = self._model.predict_graph(graph, task="efsm")
        return Evaluation(
            energy_ev_per_atom=float(said["e"]),
            forces_ev_per_a=np.asarray(said["f"], dtype=float),
            stress_ev_per_a3=np.asarray(said["s"], dtype=float) / GPA_PER_EV_PER_A3,
            magmoms_mu_b=np.abs(np.asarray(said["m"], dtype=float)).reshape(-1),
        )
