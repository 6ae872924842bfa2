"""Check the installation: what works, what is missing, and the command that fixes each thing.

It neither reads the environment nor prints: the settings describe the environment, and the command
line prints the findings.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from hullward.models.crystal import Crystal
from hullward.models.errors import HullwardError
from hullward.models.potential import Potential

PYTHONS = (3, 11), (3, 14)  # from, below
LEAST_FREE_GB = 5.0  # a run refuses to start below it
POTENTIAL = "chgnet-0.3.0"
REINSTALL = "pip install --force-reinstall --no-deps chgnet==0.4.2"
REINSTALL_SECOND = "pip install --force-reinstall --no-deps sevenn==0.13.0"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check. ok: True works, False is broken, None is optional and absent."""

    name: str
    ok: bool | None
    says: str
    fix: str = ""  # one command; empty where nothing needs doing


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The parts of the environment that are checked; of a key, only whether it is set."""

    mp_api_key_present: bool
    thread_variables: Mapping[str, str | None]  # e.g. OMP_NUM_THREADS; None: not set
    vllm_python: str | None = None  # the interpreter that has vLLM


def diagnose(environment: Environment, folder: Path = Path()) -> list[Finding]:
    """Check everything a campaign in `folder` needs. Takes seconds: libraries are loaded."""
    return [
        check_python(sys.version_info[:3]),
        check_packages(requires("hullward") or []),
        *check_torch(),
        check_weights(),
        check_potential(_load_potential),
        check_second(),
        check_reference(),
        check_types(),
        check_vllm(environment.vllm_python),
        check_key(environment.mp_api_key_present),
        check_disk(folder, _free_gb(folder)),
        check_processors(_usable_cores(), environment.thread_variables),
    ]


def check_python(found: tuple[int, int, int]) -> Finding:
    first, beyond = PYTHONS
    says = f"{'.'.join(map(str, found))} on {platform.system()} {platform.machine()}"
    if first <= found[:2] < beyond:
        return Finding(name="python", ok=True, says=says)
    wanted = f"{first[0]}.{first[1]} to {beyond[0]}.{beyond[1] - 1}"
    fix = f"make setup PYTHON=python{first[0]}.{first[1]}"
    return Finding(name="python", ok=False, says=f"{says}; {wanted} are supported", fix=fix)


def check_packages(
    requirements: Sequence[str], installed: Callable[[str], str] = version
) -> Finding:
    """Compare what is installed with what the package declares; extras are left out."""
    wanted = [Requirement(text) for text in requirements]
    wanted = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong: dict[str, str] = {}
    for requirement in wanted:
        try:
            found = installed(requirement.name)
        except PackageNotFoundError:
            found = "missing"
        else:
            if requirement.specifier.contains(found, prereleases=True):
                continue
        wrong[f"{requirement.name}{requirement.specifier}"] = f"{requirement.name} {found}"
    if not wrong:
        says = f"hullward {installed('hullward')} and the {len(wanted)} it needs"
        return Finding(name="packages", ok=True, says=says)
    fix = "pip install " + " ".join(f"'{requirement}'" for requirement in wrong)
    return Finding(name="packages", ok=False, says="; ".join(wrong.values()), fix=fix)


def check_torch() -> list[Finding]:
    """Two findings: the build of torch, and whether it sees a GPU."""
    try:
        import torch
    except (ImportError, OSError) as error:
        fix = "rm -rf .venv && make setup"
        return [Finding(name="torch", ok=False, says=f"cannot be loaded: {error}", fix=fix)]
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    torch_found = Finding(name="torch", ok=True, says=f"{torch.__version__}, {build}")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return [torch_found, Finding(name="gpu", ok=True, says=", ".join(names))]
    if shutil.which("nvidia-smi") is None:
        return [torch_found, Finding(name="gpu", ok=None, says="none; the CPU does all the work")]
    says = "there is a driver, but torch sees no GPU"
    return [torch_found, Finding(name="gpu", ok=None, says=says, fix="nvidia-smi && make setup")]


def check_weights() -> Finding:
    """Compare the weight file with the published one, before anything opens it."""
    from hullward.models.potential import potential_card

    try:
        card = potential_card(POTENTIAL)
    except HullwardError as error:
        return Finding(name="weights", ok=False, says=str(error), fix=REINSTALL)
    says = f"{card.name}, sha256 {card.weights_sha256[:12]}… as published"
    return Finding(name="weights", ok=True, says=says)


def check_second(load: Callable[[str], Potential] | None = None) -> Finding:
    """Check the network of the second energies: its weights, and an answer."""
    from hullward.models.potential import load_potential, potential_card
    from hullward.tools.uncertainty import shipped

    name = "second network"
    calibrator = shipped()
    if calibrator is None or not calibrator.reading:
        return Finding(name=name, ok=None, says="the shipped calibrator needs none")
    try:
        same = potential_card(calibrator.reading).weights_sha256 == calibrator.reading_sha256
        wrong = "" if same else "its weights are not those the calibrator was fitted with"
    except HullwardError as error:
        wrong = str(error)
    if wrong:
        says = f"{calibrator.reading}: {wrong}; without it there are no probabilities"
        return Finding(name=name, ok=False, says=says, fix=REINSTALL_SECOND)
    found = check_potential(lambda: (load or load_potential)(calibrator.reading))
    fix = "" if found.ok else REINSTALL_SECOND
    says = found.says.replace(POTENTIAL, calibrator.reading)
    return replace(found, name=name, says=says, fix=fix)


def check_potential(load: Callable[[], Potential]) -> Finding:
    """Evaluate rock salt: shows that the libraries fit together on this machine."""
    try:
        potential = load()
        start = time.perf_counter()
        [answer] = potential.evaluate([_rock_salt()])
        if isinstance(answer, Exception):
            raise answer
    except Exception as error:  # any failure is the finding
        says = f"{POTENTIAL} does not answer: {type(error).__name__}: {error}"
        return Finding(name="potential", ok=False, says=says, fix=REINSTALL)
    took_ms = 1000 * (time.perf_counter() - start)
    energy = f"NaCl {answer.energy_ev_per_atom:.3f} eV/atom"
    says = f"{potential.card.name} answers: {energy}, {took_ms:.0f} ms"
    return Finding(name="potential", ok=True, says=says)


def check_reference() -> Finding:
    """Check the embedded reference; the finding quotes what it covers."""
    from hullward.tools.reference import load_reference

    try:
        reference = load_reference("embedded")
    except HullwardError as error:
        fix = "pip install --force-reinstall --no-deps hullward"
        return Finding(name="reference", ok=False, says=str(error), fix=fix)
    says = f"{reference.reference_id} {reference.version}: {reference.statement}"
    return Finding(name="reference", ok=True, says=says)


def check_types() -> Finding:
    """Check the package of structure types that `hullward reference build` decorates."""
    from hullward.tools.prototypes import INSTALL_ENCYCLOPEDIA, require_encyclopedia

    try:
        says = require_encyclopedia()
    except HullwardError:
        says = "not installed; only needed to build references of your own"
        return Finding(name="types", ok=None, says=says, fix=INSTALL_ENCYCLOPEDIA)
    return Finding(name="types", ok=True, says=f"{says}, for building references")


def check_vllm(python: str | None) -> Finding:
    """VLLM in the interpreter that HULLWARD_VLLM_PYTHON names, else in this one.

    Found without importing it: that would take half a minute.
    """
    from hullward.models.serving import INSTALL_ON_CPU, INSTALL_ON_GPU, SET_VLLM_PYTHON, find_vllm

    try:
        found = find_vllm(python or sys.executable)
    except HullwardError as error:
        if python is not None:
            return Finding(name="vllm", ok=False, says=str(error), fix=SET_VLLM_PYTHON)
        says = "not in this environment; only needed to serve language models (hullward serve)"
        fix = INSTALL_ON_CPU if shutil.which("nvidia-smi") is None else INSTALL_ON_GPU
        return Finding(name="vllm", ok=None, says=says, fix=fix)
    return Finding(name="vllm", ok=True, says=f"{found} in {python or sys.executable}")


def check_key(present: bool) -> Finding:
    if present:
        return Finding(name="mp key", ok=True, says="MP_API_KEY is set (not checked online)")
    says = "MP_API_KEY is not set; only needed for references from the Materials Project"
    return Finding(name="mp key", ok=None, says=says, fix="export MP_API_KEY=YOUR_KEY")


def check_disk(folder: Path, free_gb: float) -> Finding:
    says = f"{free_gb:.1f} GB free for {folder.absolute()}"
    if free_gb >= LEAST_FREE_GB:
        return Finding(name="disk", ok=True, says=says)
    fix = "hullward run CAMPAIGN.yaml --dir A_FOLDER_ON_ANOTHER_DISK"
    says = f"{says}, {LEAST_FREE_GB:.0f} GB are needed"
    return Finding(name="disk", ok=False, says=says, fix=fix)


def check_processors(cores: int, thread_variables: Mapping[str, str | None]) -> Finding:
    """Cores and threads: more threads than cores make everything many times slower."""
    seen = (f"{k}={v}" for k, v in sorted(thread_variables.items()) if v is not None)
    threads = ", ".join(seen) or "no thread variable set"
    says = f"{cores} usable cores; workers compute with one thread each (here: {threads})"
    return Finding(name="processors", ok=True, says=says)


def _usable_cores() -> int:
    """Cores this process may use: a batch system or container may have left it fewer."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _free_gb(folder: Path) -> float:
    """Free space where `folder` is or would be made."""
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free / 1e9


def _load_potential() -> Potential:
    from hullward.models.potential import load_potential

    return load_potential(POTENTIAL)


def _rock_salt() -> Crystal:
    half = 2.85  # Å, half the cubic lattice constant
    return Crystal.from_arrays(
        [[0, half, half], [half, 0, half], [half, half, 0]],
        ["Na", "Cl"],
        [[0, 0, 0], [0.5, 0.5, 0.5]],
    )
