"""`converged` is a statement on the numbers that are recorded."""

from typing import get_args

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.potential import load_potential
from hullward.tools.records import Protocol, Relaxation
from hullward.tools.relax import relax_best_first, relax_cached
from hullward.tools.relax.cache import RelaxationCache
from hullward.tools.relax.stream import relax_stream, within_limits

OPTIMIZERS = get_args(Protocol.model_fields["optimizer"].annotation)
FILTERS = get_args(Protocol.model_fields["cell_filter"].annotation)


def strained(seed: int) -> Crystal:
    rng = np.random.default_rng(seed)
    cell = np.eye(3) * 4.6 + rng.normal(scale=0.35, size=(3, 3))
    coords = np.array([(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)])
    return Crystal.from_arrays(
        cell, ["Na", "Cl", "Na", "Cl"], coords + rng.normal(scale=0.02, size=(4, 3))
    )


JOBS = [(f"c{seed}", strained(seed)) for seed in range(8)]


def at_its_end(done: Relaxation) -> bool:
    """Evaluated again, the recorded crystal has forces and stress within the limits."""
    fmax = done.protocol.fmax_ev_per_a * (1 + 1e-6)
    (again,) = load_potential(done.potential).evaluate([done.crystal])
    forces = np.linalg.norm(again.forces_ev_per_a, axis=1).max()
    pull = np.abs(again.stress_ev_per_a3).max() * done.volume_per_atom_a3
    return forces < fmax and pull < fmax


@pytest.mark.parametrize("max_steps", [0, 7, 30, 400])
@pytest.mark.parametrize("cell_filter", FILTERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_converged_means_below_the_limits(optimizer, cell_filter, max_steps, tmp_path):
    protocol = Protocol(optimizer=optimizer, cell_filter=cell_filter, max_steps=max_steps)
    height = lambda crystal, energy: energy  # noqa: E731
    fresh = list(relax_cached(JOBS, "toy", protocol, tmp_path, workers=0))
    cached = list(relax_cached(JOBS, "toy", protocol, tmp_path, workers=0))
    ordered = list(relax_best_first(JOBS, height, "toy", protocol, workers=0))
    assert max_steps < 400 or sum(r.converged for r in fresh) >= 7
    for done in (*fresh, *cached, *ordered):
        assert not done.converged or (within_limits(done) and at_its_end(done))


def test_a_structure_at_its_minimum_converges_without_a_step():
    (first,) = relax_stream(JOBS[:1], load_potential("toy"), Protocol(fmax_ev_per_a=0.01))
    again = list(relax_stream([("c", first.crystal)], load_potential("toy"), Protocol(max_steps=0)))
    assert again[0].converged
    assert again[0].steps == 0


def test_a_cached_relaxation_above_its_limits_is_done_again(tmp_path):
    protocol = Protocol()
    (done,) = relax_cached(JOBS[:1], "toy", protocol, tmp_path, workers=0)
    cache = RelaxationCache(tmp_path, "toy", protocol)
    assert cache.find(*JOBS[0]) is not None
    cache.keep(done.model_copy(update={"residual_force_ev_per_a": 0.06}), JOBS[0][1])
    assert cache.find(*JOBS[0]) is None
