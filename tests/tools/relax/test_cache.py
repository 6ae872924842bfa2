"""A cached relaxation is the one asked for, bit for bit, or none."""

import random
import shutil

import pytest

from hullward.models.crystal import Crystal
from hullward.tools.records import Protocol
from hullward.tools.relax import relax_cached

PROTOCOL = Protocol(max_steps=40)
CRYSTALS = {
    f"c-{a}": Crystal.from_parameters(
        (a, a, a), (90, 90, 90), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    for a in (3.2, 3.3)
}


def relaxed(home):
    found = relax_cached(CRYSTALS.items(), "toy", PROTOCOL, home, workers=0)
    return {r.candidate_id: r.model_copy(update={"cpu_s": 0.0}) for r in found}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    home = tmp_path_factory.mktemp("cache")
    return home, relaxed(home)


def files(home):
    return sorted((home / "relaxations").rglob("*.json"))


def test_what_is_cached_is_found_and_costs_nothing(filled):
    home, first = filled
    assert len(files(home)) == 2
    found = list(relax_cached(CRYSTALS.items(), "toy", PROTOCOL, home, workers=0))
    assert [r.cpu_s for r in found] == [0.0, 0.0]
    assert {r.candidate_id: r for r in found} == first


@pytest.mark.parametrize(
    "seed", [*range(8), *(pytest.param(n, marks=pytest.mark.slow) for n in range(8, 60))]
)
def test_a_damaged_file_is_not_believed_and_made_again(filled, tmp_path, caplog, seed):
    home, first = tmp_path / "home", filled[1]
    shutil.copytree(filled[0], home)
    rng = random.Random(seed)
    for path in files(home):
        content = bytearray(path.read_bytes())
        start, length = rng.randrange(len(content)), rng.choice((1, 1, 16, 512))
        if seed % 4 == 0:
            content[start] ^= 1 << rng.randrange(8)
        elif seed % 4 == 1:
            content[start : start + length] = bytes(len(content[start : start + length]))
        elif seed % 4 == 2:
            del content[start:]
        else:
            content[start:start] = content[:length]
        path.write_bytes(content)
    assert relaxed(home) == first
    assert caplog.text.count("is not used") == 2
    caplog.clear()
    assert relaxed(home) == first  # as the files were made again
    assert caplog.text == ""


def test_a_file_under_the_name_of_another_is_not_believed(filled, tmp_path, caplog):
    home, first = tmp_path / "home", filled[1]
    shutil.copytree(filled[0], home)
    one, other = files(home)
    other.write_bytes(one.read_bytes())
    assert relaxed(home) == first
    assert caplog.text.count("is not used") == 1


def test_a_file_of_a_version_without_checksums_is_made_again(filled, tmp_path, caplog):
    home, first = tmp_path / "home", filled[1]
    shutil.copytree(filled[0], home)
    for path in files(home):
        path.write_text(first["c-3.2"].model_dump_json())
    assert relaxed(home) == first
    assert caplog.text.count("it has no checksum") == 2
