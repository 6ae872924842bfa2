"""A few steps of every structure, then the lowest first: nothing is lost, the choice is fixed."""

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.potential import load_potential
from hullward.tools.records import Protocol, Reason, Relaxation
from hullward.tools.relax import relax_best_first, relax_stream, schedule
from hullward.tools.relax.state import EARLY_STEPS, PausedRelaxation
from hullward.tools.relax.stream import relax_in_turns

TOY = load_potential("toy")
OPTIMISERS = ("fire", "bfgs", "fire-bfgs")
COORDS = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]


def crystal(seed: int, a: float = 5.8, jolt: float = 0.08) -> Crystal:
    coords = np.array(COORDS + [(x + 0.5, y, z) for x, y, z in COORDS])[: 4 + seed % 5]
    coords = coords + np.random.default_rng(seed).normal(scale=jolt, size=coords.shape)
    cell = a * np.diag([1.0, 1.0, 1.0 + 0.02 * seed])
    return Crystal.from_arrays(cell, (["Na"] * 4 + ["Cl"] * 4)[: len(coords)], coords)


def jobs(n: int = 10) -> list[tuple[str, Crystal]]:
    far = Crystal.from_arrays(30 * np.eye(3), ["Na"], [[0, 0, 0]])  # ends before it begins
    return [("far", far), *((f"c{i}", crystal(i)) for i in range(n - 1))]


def protocol(name: str = "fire-bfgs") -> Protocol:
    return Protocol(optimizer=name, fmax_ev_per_a=0.005, max_steps=200)


def by_energy(crystal: Crystal, energy_ev_per_atom: float) -> float:
    return energy_ev_per_atom


def best(found: list[Relaxation]) -> dict[str, Relaxation]:
    return {r.candidate_id: r for r in found}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_who_pauses_goes_on_as_if_nothing_had_been(name: str):
    straight = best(list(relax_stream(jobs(), TOY, protocol(name), at_once=3)))
    left = list(relax_in_turns(jobs(), TOY, protocol(name), at_once=3))
    paused = [one for one in left if isinstance(one, PausedRelaxation)]
    assert paused
    assert all(one.state.steps[0] == EARLY_STEPS for one in paused)
    done = [one for one in left if isinstance(one, Relaxation)]
    done += relax_in_turns(reversed(paused), TOY, protocol(name), at_once=4)
    assert best(done).keys() == straight.keys()
    for who, one in best(done).items():
        same = straight[who]
        assert (one.steps, one.force_calls, one.converged, one.failure, one.detail) == (
            same.steps,
            same.force_calls,
            same.converged,
            same.failure,
            same.detail,
        )
        if same.energy_ev_per_atom is not None:
            assert one.energy_ev_per_atom == pytest.approx(same.energy_ev_per_atom, abs=1e-9)
            assert one.early_energy_ev_per_atom == pytest.approx(same.early_energy_ev_per_atom)
            np.testing.assert_allclose(one.crystal.frac_coords, same.crystal.frac_coords, atol=1e-7)


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_is_lost(workers: int):
    found = list(relax_best_first(jobs(), by_energy, "toy", protocol(), workers=workers))
    assert sorted(r.candidate_id for r in found) == sorted(who for who, _ in jobs())
    assert best(found)["far"].failure == Reason.ATOM_ISOLATED


def early(work: list[tuple[str, Crystal]]) -> list[str]:
    """Ids by the energy after the first steps, none last."""
    found = list(relax_stream(work, TOY, protocol()))
    energies = {r.candidate_id: r.early_energy_ev_per_atom for r in found}
    return sorted(energies, key=lambda i: np.inf if energies[i] is None else energies[i])


def test_a_limit_takes_the_lowest_whatever_is_cached_or_quick(tmp_path):
    expected = early(jobs())[:4]
    for home, workers in ((None, 0), (tmp_path, 2), (tmp_path, 0)):
        found = list(
            relax_best_first(
                jobs(), by_energy, "toy", protocol(), home=home, workers=workers, limit=4
            )
        )
        assert {r.candidate_id for r in found} == {*expected}
    everyone = list(relax_best_first(jobs(), by_energy, "toy", protocol(), tmp_path, workers=0))
    assert len(everyone) == len(jobs())
    again = relax_best_first(jobs(), by_energy, "toy", protocol(), tmp_path, workers=0, limit=4)
    assert [r.candidate_id for r in again] == expected  # all are cached by now: lowest first


def watch_what_goes_on(monkeypatch) -> list[str]:
    """Ids in the order in which paused structures go on, filled as that happens."""
    begun: list[str] = []
    real = schedule.relax_many_in_turns

    def watched(turns, *args, **kwargs):
        def noting():
            for job in turns:
                if isinstance(job, PausedRelaxation):
                    begun.append(job.candidate_id)
                yield job

        return real(noting(), *args, **kwargs)

    monkeypatch.setattr(schedule, "relax_many_in_turns", watched)
    return begun


def test_the_lowest_go_on_first_and_a_stop_leaves_the_highest(monkeypatch):
    begun = watch_what_goes_on(monkeypatch)
    found = list(
        relax_best_first(
            jobs(), by_energy, "toy", protocol(), workers=0, stopping=lambda: len(begun) == 3
        )
    )
    order = [who for who in early(jobs()) if who not in {r.candidate_id for r in found} - {*begun}]
    assert begun == order[:3]
    assert {*begun} <= {r.candidate_id for r in found}
    assert len(found) < len(jobs())


def test_a_stop_at_the_outset_begins_nothing():
    stream = relax_best_first(
        jobs(), by_energy, "toy", protocol(), workers=0, stopping=lambda: True, limit=3
    )
    assert list(stream) == []


def test_equals_go_in_the_order_given(monkeypatch):
    begun = watch_what_goes_on(monkeypatch)
    flat = relax_best_first(jobs(), lambda c, e: 0.0, "toy", protocol(), workers=0, limit=3)
    assert {r.candidate_id for r in flat} == {"c0", "c1", "c2"}  # 'far' has no energy at all
    assert begun == sorted(begun)
    assert begun
