"""Reduced cells are kept beside a campaign, and whatever becomes of their file changes nothing."""

import random
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.tools.crystal import ComparedCrystal, OrderedLattice, equivalence, parent_lattice
from hullward.tools.prototypes import perturb, prototype_library
from hullward.tools.screening.cells import CELLS, KeptCells, cell_file


@pytest.fixture(scope="module")
def crystals() -> list[Crystal]:
    """Ordered structures with and without symmetry, and one that cannot be compared."""
    rng = np.random.default_rng(15)
    found = [p.crystal for p in prototype_library() if p.n_atoms <= 12][::25]
    found += [perturb("", one, rng, rattle_a=0.1).crystal for one in found]
    flat = Crystal.from_arrays([[3, 0, 0], [0, 3, 0], [0, 0, 0.3]], ["Na"], [[0, 0, 0]])
    return [*found, flat]


@pytest.fixture
def texts(crystals: Sequence[Crystal]) -> list[str]:
    return [one.model_dump_json() for one in crystals]


def bodies(kept: KeptCells, texts: Sequence[str]) -> list[bytes]:
    compared = kept.compared([(str(k), text) for k, text in enumerate(texts)])
    assert [one.name for one in compared] == [str(k) for k in range(len(texts))]
    return [one.to_bytes() for one in (*compared, *kept.lattices(texts))]


@pytest.fixture(scope="module")
def expected(crystals: Sequence[Crystal]) -> list[bytes]:
    return [make(one).to_bytes() for make in (_compared, OrderedLattice) for one in crystals]


def _compared(crystal: Crystal) -> ComparedCrystal:
    return ComparedCrystal("", crystal)


def forbid_reducing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("reduced again")

    monkeypatch.setattr("hullward.tools.crystal.matching.compared_cells", refuse)
    monkeypatch.setattr(parent_lattice, "_parent", refuse)


def test_no_crystal_is_reduced_twice(
    tmp_path: Path, texts: Sequence[str], expected: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptCells(tmp_path / CELLS)
    assert bodies(kept, texts) == expected
    kept.close()
    forbid_reducing(monkeypatch)
    assert bodies(KeptCells(tmp_path / CELLS), texts) == expected


def test_crystals_compare_as_if_they_had_just_been_reduced(
    tmp_path: Path, crystals: Sequence[Crystal], texts: Sequence[str]
) -> None:
    kept = KeptCells(tmp_path / CELLS).compared([("", text) for text in texts])
    fresh = [_compared(one) for one in crystals]
    assert [one.content_id for one in kept] == [one.content_id for one in crystals]
    for one, other in zip(kept, fresh, strict=True):
        for third in fresh[::5]:
            assert one.rms_to(third) == other.rms_to(third)
            assert one.is_identical(third) == other.is_identical(third)


@pytest.mark.parametrize("seed", range(25))
def test_damage_is_found_and_mended(
    seed: int, tmp_path: Path, texts: Sequence[str], expected: list[bytes]
) -> None:
    path, rng = tmp_path / CELLS, random.Random(seed)
    first = KeptCells(path)
    right = bodies(first, texts)
    first.close()
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 20, 400])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data[: rng.choice([len(data), len(data) // 2, 30])])
    assert bodies(KeptCells(path), texts) == right == expected


def test_cells_of_other_code_are_not_used(
    tmp_path: Path, texts: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / CELLS
    monkeypatch.setattr(cell_file, "_rule", lambda: "another")
    other = KeptCells(path)
    other.compared([("", texts[0])])
    other.close()
    monkeypatch.undo()
    calls = []
    reduce = equivalence.compared_cells
    monkeypatch.setattr(
        "hullward.tools.crystal.matching.compared_cells",
        lambda crystal: calls.append(crystal) or reduce(crystal),
    )
    KeptCells(path).compared([("", texts[0])])
    assert len(calls) == 1


@pytest.mark.parametrize("content", [b"no database", b""])
def test_a_file_that_is_none_is_begun_anew(
    content: bytes, tmp_path: Path, texts: Sequence[str], expected: list[bytes]
) -> None:
    (tmp_path / CELLS).write_bytes(content)
    assert bodies(KeptCells(tmp_path / CELLS), texts) == expected


def test_without_a_place_to_write_nothing_is_kept(
    tmp_path: Path, texts: Sequence[str], expected: list[bytes]
) -> None:
    (tmp_path / CELLS).mkdir()  # cannot be opened as a file
    kept = KeptCells(tmp_path / CELLS)
    assert bodies(kept, texts) == expected
    with pytest.raises(sqlite3.OperationalError):
        sqlite3.connect(tmp_path / CELLS)
