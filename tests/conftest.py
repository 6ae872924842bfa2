"""Fixtures for all tests. Real data is expected beside the project."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from hullward.models.crystal import Crystal

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"

# No deadline: the time of one example depends on the machine more than on the code.
settings.register_profile("hullward", deadline=None)
settings.load_profile("hullward")


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests relax out of the user's home, and the other way round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HULLWARD_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def repository_files() -> list[Path]:
    """Every file in the repository or about to enter it; skips outside a git checkout."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real data not found at {SHARED.parent.name}/{SHARED.name} beside the project")
    return SHARED


@pytest.fixture(scope="session")
def tiny_vllm(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A function that plans a vLLM server of a small Llama and an adapter, at a free port.

    Tests that use it are skipped where vLLM cannot be found.
    """
    from hullward.agents.settings import read_machine
    from hullward.models.errors import PreflightError
    from hullward.models.language.tiny_llama import CONTEXT, write_tiny_adapter, write_tiny_llama
    from hullward.models.serving import ServePlan, find_vllm

    python = read_machine().vllm_python or sys.executable
    try:
        find_vllm(python)
    except PreflightError as error:
        pytest.skip(str(error))
    home = tmp_path_factory.mktemp("served")
    base = write_tiny_llama(home / "tiny")
    adapter = write_tiny_adapter(home / "adapter", base)

    def plan(context_tokens: int = CONTEXT) -> ServePlan:
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            port = trial.getsockname()[1]
        return ServePlan(
            python=python,
            model=str(base),
            name="tiny",
            context_tokens=context_tokens,
            dtype="float32",
            port=port,
            adapters={"tuned": adapter},
            rank=4,
            cpu_cache_gb=1,
            more=("--enforce-eager",),  # nothing here is worth compiling
        )

    return plan


def stacked(*metals: str) -> "Crystal":
    """Cells of MnO in its type in the toy potential's world, one on the other."""
    from hullward.models.crystal import Crystal

    n = len(metals)
    sites = [[0, 0, k / n] for k in range(n)] + [[0.5, 0.5, (k + 0.5) / n] for k in range(n)]
    return Crystal.from_parameters((2.6, 2.6, 2.6 * n), (90,) * 3, [*metals, *["O"] * n], sites)


@pytest.fixture(scope="session")
def toy_reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete reference for Li-Mn-O by the toy potential, as an entry file."""
    from hullward.models.crystal import Crystal
    from hullward.models.potential import load_potential
    from hullward.tools.records import Protocol
    from hullward.tools.relax.stream import relax_one

    half = [[0, 0, 0], [0.5, 0.5, 0.5]]
    seeds = {
        "Li": Crystal.from_parameters((3.4,) * 3, (90,) * 3, ["Li", "Li"], half),
        "Mn": Crystal.from_parameters((2.9,) * 3, (90,) * 3, ["Mn", "Mn"], half),
        "O": Crystal.from_parameters((3.0,) * 3, (90,) * 3, ["O", "O"], half),
        "MnO": Crystal.from_parameters((2.6,) * 3, (90,) * 3, ["Mn", "O"], half),
        "LiO": Crystal.from_parameters((2.6,) * 3, (90,) * 3, ["Li", "O"], half),
        "LiMnO2": stacked("Li", "Mn"),  # metals that can change places
    }
    potential = load_potential("toy")
    lines = []
    for name, crystal in seeds.items():
        done = relax_one(name, crystal, potential, Protocol(max_steps=2000))
        assert done.converged, f"{name} did not converge: {done.detail}"
        entry = {
            "entry_id": f"toy-{name}",
            "composition": done.crystal.amounts,
            "energy": done.energy_ev_per_atom * crystal.n_atoms,
            "correction": 0.0,
            "structure": done.crystal.to_structure().as_dict(),
        }
        lines.append(json.dumps(entry))
    path = tmp_path_factory.mktemp("toy") / "toy.jsonl"
    path.write_text("\n".join(lines) + "\n")
    sidecar = {"energy_scheme": "toy", "corrected": True, "complete": True}
    path.with_name("toy.reference.json").write_text(json.dumps(sidecar))
    return path


@pytest.fixture(scope="session")
def toy_settings(toy_reference: Path) -> dict[str, Any]:
    """Settings of a small campaign with the toy potential and its reference."""
    return {
        "name": "toy",
        "systems": ["Li-Mn-O"],
        "min_elements": 2,
        "max_atoms": 10,
        "oxidation_states": {"Li": [1], "Mn": [2, 3, 4], "O": [-2]},
        "potential": "toy",
        "reference": f"file:{toy_reference}",
        "protocol": {"fmax_ev_per_a": 0.1, "max_steps": 200},
        "budget": {"cycles": 3, "proposals_per_cycle": 9},
        "seed": 3,
        "workers": 0,
    }


@pytest.fixture(scope="session")
def toy_seeds(toy_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished screening of ternary oxides, as seeds: operators have parents at once.

    They are no phases of the reference, and their metals can change places.
    """
    from hullward.agents.campaign.screen_file import describe, screen_file

    folder = tmp_path_factory.mktemp("seeds")
    lines = [
        json.dumps({"structure": stacked(*metals).model_dump(mode="json")})
        for metals in (("Li", "Mn", "Mn"), ("Li", "Li", "Mn"))
    ]
    path = folder / "oxides.jsonl"
    path.write_text("\n".join(lines) + "\n")
    asked = {key: toy_settings[key] for key in ("potential", "reference", "protocol")}
    screen_file(folder / "s", path, describe(path, **asked), workers=0)
    return folder / "s"
