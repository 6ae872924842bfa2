"""CPU time, memory and file sizes of a cycle in campaigns of 10³ to 10⁵ judged candidates.

    python tests/benchmarks/growth.py FOLDER
    python tests/benchmarks/growth.py FOLDER --sizes 1000 --cycles 3 --chgnet 20
    python tests/benchmarks/growth.py FOLDER --real 12000

A campaign of each size is fabricated once and kept in FOLDER: distinct structures of 35 chemical
systems, their records written by the store itself, so that nothing is left to do. A copy of it is
opened; an idle cycle (every step over proposals that are done) and real cycles of 100 proposals by
the default operators follow, relaxed by the toy potential in this process. Bookkeeping is what is
left of the CPU time without the relaxations; it is compared with what CHGNet needs to relax 100.
With --real a campaign of so many proposals runs from its start to its report instead.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial, wraps
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import numpy as np
from common import cpu_s, open_snapshot, options
from langgraph.runtime import Runtime
from pymatgen.core import Element

from hullward.agents.campaign import graph, run
from hullward.agents.settings import Campaign, Machine, parse_settings
from hullward.agents.workspace import Workspace, open_workspace
from hullward.models.crystal import Crystal
from hullward.models.potential import load_potential
from hullward.tools.crystal import parse_formula, reduced_amounts
from hullward.tools.crystal.files import KnownPhases
from hullward.tools.hull import Hull, Phase
from hullward.tools.prototypes import perturb, prototype_library
from hullward.tools.records import (
    Candidate,
    CycleEnd,
    Explanation,
    FamilyMember,
    Label,
    Proposal,
    Protocol,
    Record,
    Relaxation,
    StabilityProbability,
    Verdict,
    stable_id,
)
from hullward.tools.reference import load_reference
from hullward.tools.relax.stream import relax_one
from hullward.tools.report import write_report
from hullward.tools.screening.explain import explainer_of
from hullward.tools.store import Store
from hullward.tools.uncertainty.calibrator import known_calibrators
from hullward.tools.uncertainty.probabilities import probabilities_of

SIZES = (1_000, 10_000, 100_000)
PER_CYCLE = 100
BATCH = 2_000  # candidates written at once
PALETTE = ("Li", "Na", "Mg", "Mn", "Fe", "O", "F")  # 35 systems of three elements
WIDE = (*PALETTE, "K", "Ca", "Al", "Ti", "Ni", "Zn", "S")  # 364 systems
MOST_ATOMS = 24
CHGNET_CPU_S = 0.41  # a structure: RESULTS.md, "Relaxation engine", fire-bfgs, fmax 0.1 eV/Å
AnyRecord = TypeVar("AnyRecord", bound=Record)
STAGES = ("plan", "propose", "check", "match", "supervise", "judge", "publish")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("folder", type=Path, help="fabricated campaigns are kept here")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--cycles", type=int, default=3, help="real cycles, after the idle one")
    parser.add_argument("--real", type=int, default=0, help="most proposals of a whole campaign")
    parser.add_argument("--report", action="store_true", help="time and size of the report too")
    parser.add_argument("--chgnet", type=int, default=0, help="proposals to relax with CHGNet too")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    if asked.real:
        run_whole(asked.folder, asked.real)
        return
    if len(asked.sizes) > 1:  # memory is that of a process
        for size in asked.sizes:
            more = ["--sizes", str(size)]  # the last one counts
            subprocess.run([sys.executable, __file__, *sys.argv[1:], *more], check=True)
        return
    measure(asked.folder, asked.sizes[0], asked)


# ---- a fabricated campaign ----


def settings_of(reference: Path, cycles: int, palette: tuple[str, ...] = PALETTE) -> Campaign:
    """A campaign of all systems of three elements, with default operators."""
    asked = {
        "name": "growth",
        "elements": palette,
        "min_elements": 3,
        "max_elements": 3,
        "max_atoms": MOST_ATOMS,
        "potential": "toy",
        "reference": f"file:{reference}",
        "protocol": {"fmax_ev_per_a": 0.1, "max_steps": 200},
        "budget": {"cycles": cycles, "proposals_per_cycle": PER_CYCLE},
        "workers": 0,
    }
    return parse_settings(Campaign, asked, "growth.py")


def toy_reference(folder: Path, palette: tuple[str, ...] = PALETTE) -> Path:
    """The embedded phases of the palette, relaxed by the toy potential, as an entry file."""
    path = folder / f"toy{len(palette)}.jsonl"
    if path.exists():
        return path
    potential, lines = load_potential("toy"), []
    for phase in load_reference("embedded").phases("-".join(sorted(palette))):
        if phase.crystal is None:
            continue
        done = relax_one(phase.phase_id, phase.crystal, potential, Protocol(max_steps=1000))
        if done.crystal is None or done.energy_ev_per_atom is None:
            continue
        entry = {
            "entry_id": f"toy-{phase.phase_id}",
            "composition": done.crystal.amounts,
            "energy": done.energy_ev_per_atom * done.crystal.n_atoms,
            "correction": 0.0,
            "structure": done.crystal.to_structure().as_dict(),
        }
        lines.append(json.dumps(entry))
    path.write_text("\n".join(lines) + "\n")
    sidecar = {"energy_scheme": "toy", "corrected": True, "complete": True}
    path.with_suffix(".reference.json").write_text(json.dumps(sidecar))
    return path


def fabricated(folder: Path, size: int) -> Path:
    """A campaign directory with `size` judged candidates, made once."""
    directory = folder / str(size)
    if (directory / "snapshot.duckdb").exists():
        Store.open(directory, command="growth").close()  # brings the tables up to date
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    started = time.process_time()
    with closing(opened(folder, directory, size)) as workspace:
        fabricate(workspace, size)
        workspace.store.publish()
    print(f"{size} candidates fabricated in {time.process_time() - started:.0f} CPU s", flush=True)
    return directory


def opened(folder: Path, directory: Path, size: int) -> Workspace:
    """The campaign opened for writing; its relaxations are shared with no other."""
    campaign = settings_of(toy_reference(folder), size // PER_CYCLE + 100)
    machine = Machine(home=folder / "home", cache=False)
    return open_workspace(directory, machine, command="growth", campaign=campaign)


def fabricate(workspace: Workspace, size: int) -> None:
    """Store judged candidates as finished cycles would have left them."""
    rng = np.random.default_rng(size)
    makers, made = makers_of(workspace, size, rng), set[str]()
    low = (rng.exponential(0.12, size) - 0.01).tolist()
    phases: dict[str, list[Phase]] = defaultdict(list)
    families: dict[tuple[str, str], str] = {}  # founders, by formula and lattice
    calibrators = known_calibrators(workspace.machine.home_folder)
    while len(made) < size:
        batch: list[Record] = []
        for _ in range(min(BATCH, size - len(made))):
            name, crystal = makers[int(rng.integers(len(makers)))](rng)
            if crystal.content_id in made:
                continue
            number = len(made)
            made.add(crystal.content_id)
            batch += records_of(workspace, number, name, crystal, low[number], rng, phases)
            batch.append(family_of(batch, families, name))
            batch.append(probability_of(workspace, batch, calibrators))
        workspace.store.add(batch)
    store_unions(workspace, phases)
    workspace.store.add(
        CycleEnd(
            campaign_id=workspace.campaign.campaign_id,
            cycle=cycle,
            proposed=PER_CYCLE,
            judged=PER_CYCLE,
            force_calls=20 * PER_CYCLE,
        )
        for cycle in range(size // PER_CYCLE)
    )


Maker = Callable[[np.random.Generator], tuple[str, Crystal]]


def makers_of(workspace: Workspace, size: int, rng: np.random.Generator) -> list[Maker]:
    """What makes structures of one formula: a campaign tries more formulas the longer it runs."""
    types: dict[tuple[int, ...], list[tuple[str, Crystal]]] = defaultdict(list)
    for prototype in prototype_library():
        if prototype.n_atoms <= MOST_ATOMS and len(set(prototype.species)) == 3:
            amounts = reduced_amounts(Counter(prototype.species))
            types[tuple(sorted(amounts.values()))].append(
                (prototype.prototype_id, prototype.crystal)
            )
    wanted = round(8 * size**0.55)
    formulas = list(workspace.formulas)
    rng.shuffle(formulas)
    makers = (maker_of(formula, types) for formula in formulas)
    return [maker for maker in makers if maker is not None][:wanted]


def maker_of(formula: str, types: dict[tuple[int, ...], list[tuple[str, Crystal]]]) -> Maker | None:
    """Makes orderings of some lattices, as exchanges of atoms in supercells do: (lattice, cell)."""
    target = parse_formula(formula)
    templates = types.get(tuple(sorted(target.values())), [])
    if len(templates) < 3:
        return None
    metals, other = kinds_of(formula)

    def make(rng: np.random.Generator) -> tuple[str, Crystal]:
        name, template = templates[int(rng.integers(len(templates)))]
        own = sorted(template.amounts, key=lambda el: (template.amounts[el], el))
        mapping = dict(zip(own, sorted(target, key=lambda el: (target[el], el)), strict=True))
        cells = int(rng.integers(1, max(1, MOST_ATOMS // template.n_atoms) + 1))
        stretch = (15.0 / template.volume_per_atom_a3) ** (1 / 3)
        lattice = np.array(template.lattice) * stretch * np.array([[cells], [1], [1]])
        sites = np.array(template.frac_coords)
        frac = np.concatenate([(sites + np.eye(3)[0] * k) / [cells, 1, 1] for k in range(cells)])
        species = np.array([mapping[s] for s in template.species] * cells)
        for group in (metals, other):
            (places,) = np.nonzero(np.isin(species, group))
            species[places] = species[rng.permutation(places)]
        cell = Crystal.from_arrays(lattice, species.tolist(), frac)
        return name, perturb(name, cell, rng, strain=0.01, rattle_a=0.03).crystal

    return make


def kinds_of(formula: str) -> tuple[list[str], list[str]]:
    """Metals and nonmetals, which stand on sites of their own."""
    metals = [el for el in parse_formula(formula) if Element(el).is_metal]
    return metals, [el for el in parse_formula(formula) if el not in metals]


def records_of(
    workspace: Workspace,
    number: int,
    parent: str,
    crystal: Crystal,
    above: float,
    rng: np.random.Generator,
    phases: dict[str, list[Phase]],
) -> Iterator[Record]:
    """Everything that a finished cycle stores of one candidate, but the union verdict."""
    campaign, screen = workspace.campaign, workspace.screen
    cycle, index = divmod(number, PER_CYCLE)
    proposal_id = stable_id("x", campaign.campaign_id, number)
    yield Proposal(
        proposal_id=proposal_id,
        request_id=stable_id("q", campaign.campaign_id, cycle),
        campaign_id=campaign.campaign_id,
        cycle=cycle,
        index=index,
        operator=campaign.operators[number % 3],
        plan_id=stable_id("plan", campaign.campaign_id, cycle),
        parents=(f"prototype:{parent}",),
        seed=0,
        raw=crystal.model_dump_json(),
        format="crystal_json",
        target_formula=crystal.formula,
    )
    candidate = Candidate(
        proposal_id=proposal_id,
        candidate_id=crystal.content_id,
        crystal=crystal,
        formula=crystal.formula,
        chemsys=crystal.chemsys,
        n_atoms=crystal.n_atoms,
        volume_per_atom_a3=crystal.volume_per_atom_a3,
        min_distance_a=1.9,
        space_group=1,
        charge_balanced=True,
        charge_note="",
    )
    yield candidate
    relaxed = perturb(proposal_id, crystal, rng, strain=0.01, rattle_a=0.05).crystal
    hull = screen.reference.hull(candidate.chemsys)
    energy = float(hull.energies(hull.fractions([crystal.amounts]))[0]) + above
    relaxation = Relaxation(
        relaxation_id=Relaxation.make_id(
            crystal.content_id, screen.basis.potential_sha256, screen.basis.protocol
        ),
        candidate_id=crystal.content_id,
        potential=screen.basis.potential,
        potential_sha256=screen.basis.potential_sha256,
        energy_scheme=screen.basis.energy_scheme,
        protocol=screen.basis.protocol,
        converged=True,
        energy_ev_per_atom=energy,
        initial_energy_ev_per_atom=energy + 0.2,
        residual_force_ev_per_a=0.05,
        residual_stress_gpa=0.1,
        steps=20,
        force_calls=20,
        cpu_s=0.04,
        crystal=relaxed,
        volume_per_atom_a3=relaxed.volume_per_atom_a3,
        volume_ratio=1.0,
        space_group_loose=1,
        space_group_tight=1,
    )
    yield relaxation
    same = [  # a duplicate is one of a candidate that is none
        p.phase_id
        for p in phases[candidate.chemsys]
        if p.formula == candidate.formula and p.source != "duplicate"
    ]
    twin = same[int(rng.integers(len(same)))] if same and rng.random() < 0.03 else None
    if twin is not None:
        yield Label(
            proposal_id=proposal_id, moment="after", kind="duplicate", match_id=twin, rms_a=0.1
        )
    yield verdict_over(workspace, relaxation, candidate, hull, "reference")
    phases[candidate.chemsys].append(
        Phase(
            phase_id=candidate.candidate_id,
            formula=candidate.formula,
            composition=crystal.amounts,
            energy_ev_per_atom=energy,
            crystal=relaxed,
            source="this campaign" if twin is None else "duplicate",
        )
    )
    yield from explanations_of(workspace, candidate, parent, twin, new_type=rng.random() < 0.03)


def last_of(kind: type[AnyRecord], batch: Sequence[Record]) -> AnyRecord:
    return next(record for record in reversed(batch) if isinstance(record, kind))


def family_of(
    batch: Sequence[Record], families: dict[tuple[str, str], str], lattice: str
) -> FamilyMember:
    """The last candidate's: all orderings of one lattice are one."""
    candidate, relaxation = last_of(Candidate, batch), last_of(Relaxation, batch)
    founder = families.setdefault((candidate.formula, lattice), candidate.candidate_id)
    first = founder == candidate.candidate_id
    return FamilyMember(
        relaxation_id=relaxation.relaxation_id,
        candidate_id=candidate.candidate_id,
        family_id=founder,
        joined=founder,
        link="first" if first else "lattice",
        kin=None if first else founder,
        shared=() if first else (" ".join(sorted(kinds_of(candidate.formula)[0])),),
    )


def verdict_over(
    workspace: Workspace, relaxation: Relaxation, candidate: Candidate, hull: Hull, height: Any
) -> Verdict:
    screen, amounts = workspace.screen, candidate.crystal.amounts
    assert relaxation.energy_ev_per_atom is not None
    distance = hull.distance(amounts, relaxation.energy_ev_per_atom)
    coverage, above = screen.reference.coverage(amounts), distance.e_above_hull_ev_per_atom
    within = "stable" if above <= 1e-9 else "metastable"
    return Verdict(
        relaxation_id=relaxation.relaxation_id,
        reference_id=screen.reference.reference_id,
        reference_version=screen.reference.version,
        height=height,
        e_above_hull_ev_per_atom=above,
        decomposition=distance.decomposition,
        label=within if above <= screen.basis.metastable_ev_per_atom else "unstable",  # type: ignore[arg-type]
        covered=coverage.covered,
        coverage_note=coverage.note,
        typical_error_ev_per_atom=screen.card.typical_error_ev_per_atom,
    )


def explanations_of(
    workspace: Workspace, candidate: Candidate, parent: str, twin: str | None, *, new_type: bool
) -> Iterator[Explanation]:
    """Before and after relaxation; after it, `twin` is the one that it is a duplicate of."""
    explainer = explainer_of(workspace.screen.reference, KnownPhases(), workspace.screen.index)
    found: dict[str, Any] = {"kind": "new_prototype", "words": "new prototype"}
    if not new_type:
        found = {
            "kind": "structure_type",
            "match_id": parent,
            "match_formula": candidate.formula,
            "exchanged": ("Ca→Mg",),
            "rms_a": 0.1,
            "words": f"same prototype as {parent}",
        }
    after = found
    if twin is not None:
        words = f"the same as earlier candidate {twin}"
        after = {
            "kind": "duplicate",
            "match_id": twin,
            "match_formula": candidate.formula,
            "words": words,
        }
    for moment, changes in (("before", found), ("after", after)):
        yield Explanation(
            **{
                "candidate_id": candidate.candidate_id,
                "moment": moment,
                "match_id": None,
                "match_formula": None,
                "exchanged": (),
                "inverse": False,
                "rms_a": None,
                "against": explainer.against,
                "against_id": explainer.against_id,
                "disorder": "",
                **changes,
            }
        )


def probability_of(
    workspace: Workspace, batch: Sequence[Record], calibrators: Any
) -> StabilityProbability:
    """Why the last candidate has none: no calibrator fits the toy potential."""
    screen = workspace.screen
    pair = [(last_of(Candidate, batch), last_of(Relaxation, batch))]
    return probabilities_of(pair, screen.reference, screen.basis, calibrators, {})[0]


def store_unions(workspace: Workspace, phases: dict[str, list[Phase]]) -> None:
    """Union verdicts of all candidates, a hull for each system."""
    store, reference = workspace.store, workspace.screen.reference
    for chemsys, own in phases.items():
        hull = Hull([*reference.phases(chemsys), *own])
        owners = {c.candidate_id: c for c in store.load(Candidate, [chemsys], by="chemsys")}
        found = [
            verdict_over(workspace, r, owners[r.candidate_id], hull, "union")
            for r in store.load(Relaxation, owners, by="candidate_id")
        ]
        for start in range(0, len(found), BATCH):
            store.add(found[start : start + BATCH])


# ---- what a cycle costs ----


def measure(folder: Path, size: int, asked: argparse.Namespace) -> None:
    original = fabricated(folder, size)
    directory = folder / f"run-{size}"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(original, directory)
    spent, workspace = cpu_s(lambda: opened(folder, directory, size))
    with closing(workspace):
        print(f"\n{size} candidates: opened in {spent:.1f} CPU s, {rss_mb():.0f} MB")
        done = workspace.store.rows(
            "SELECT proposal_id FROM proposals WHERE cycle = ?", [size // PER_CYCLE - 1]
        )
        last = [row["proposal_id"] for row in done]
        watch = Watch(workspace)
        watch.idle(size // PER_CYCLE - 1, last)
        watch.line("idle, first")
        watch.idle(size // PER_CYCLE - 1, last)
        watch.line("idle, again")
        for number in range(asked.cycles):
            watch.cycle(size // PER_CYCLE + number)
            watch.line(f"cycle {number + 1}")
        sizes = {p.name: p.stat().st_size / 1e6 for p in sorted(directory.iterdir()) if p.is_file()}
        print("MB:", ", ".join(f"{name} {mb:.0f}" for name, mb in sizes.items() if mb >= 1))
        (plan,) = workspace.store.rows("SELECT max(length(formulas::VARCHAR)) AS n FROM plans")
        print(f"longest plan: {(plan['n'] or 0) / 1000:.0f} kB of formulas")
        if asked.chgnet:
            print_chgnet(workspace, asked.chgnet)
    if asked.report:
        spent, paths = cpu_s(lambda: write_report(directory))
        print(
            f"report: {spent:.1f} CPU s, {paths.html.stat().st_size / 1e6:.1f} MB on disk, "
            f"{rss_mb():.0f} MB in memory"
        )


class Watch:
    """CPU seconds of one cycle after the other."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.relaxed = workspace, 0
        self.spent: dict[str, float] = defaultdict(float)
        self.nodes: dict[str, float] = {}
        store, publish = workspace.store, workspace.store.publish
        timed = workspace.screen.hooks.timed

        def timed_publish(*args: Any, **kwargs: Any) -> Any:
            with timed("publish"):
                return publish(*args, **kwargs)

        store.publish = timed_publish  # type: ignore[method-assign]

    def cycle(self, number: int) -> None:
        self._run(number, [], ["brief", "plan", "propose", "screen", "relax", "judge", "record"])

    def idle(self, number: int, proposal_ids: list[str]) -> None:
        """What a cycle costs whose work is done."""
        self._run(number, proposal_ids, ["screen", "relax", "judge", "record"])

    def _run(self, number: int, proposal_ids: list[str], nodes: list[str]) -> None:
        state: Any = {
            "campaign_id": self.workspace.campaign.campaign_id,
            "cycle": number,
            "proposal_ids": proposal_ids,
        }
        runtime = Runtime(context=self.workspace)
        before = dict(self.workspace.screen.hooks.timed.cpu_s)
        self.nodes = {}
        for name in nodes:
            started = time.process_time()
            changed = getattr(graph, name)(state, runtime)
            self.nodes[name] = time.process_time() - started
            state |= changed if name != "record" else {}
        after = self.workspace.screen.hooks.timed.cpu_s
        self.spent = {stage: after[stage] - before.get(stage, 0.0) for stage in after}
        self.relaxed = len(state["proposal_ids"])

    def line(self, title: str) -> None:
        total, relaxing = sum(self.nodes.values()), self.spent.get("relax", 0.0)
        left = total - relaxing
        share = left / (CHGNET_CPU_S * PER_CYCLE)
        stages = ", ".join(f"{name} {self.spent.get(name, 0.0):.2f}" for name in STAGES)
        nodes = ", ".join(f"{name} {spent:.2f}" for name, spent in self.nodes.items())
        print(
            f"{title:12} bookkeeping {left:7.2f} CPU s ({100 * share:.0f} % of CHGNet's), relaxing "
            f"{relaxing:.2f}, {rss_mb():.0f} MB\n{'':12} stages: {stages}\n{'':12} nodes: {nodes}",
            flush=True,
        )


def run_whole(folder: Path, proposals: int) -> None:
    """A campaign from start to report; its relaxations, which are not measured, are short."""
    directory = folder / "real"
    shutil.rmtree(directory, ignore_errors=True)
    asked = settings_of(toy_reference(folder, WIDE), proposals // 200, WIDE).model_dump(mode="json")
    asked["budget"]["proposals_per_cycle"] = 200
    asked |= {"protocol": {"fmax_ev_per_a": 0.5, "max_steps": 60}}
    asked["operators"] = ["substitution", "perturbation"]  # few swaps of a cell differ
    campaign = parse_settings(Campaign, asked, "growth.py")
    record, seen = graph.record, [(0.0, 0.0)]

    @wraps(record)
    def watched(state: Any, runtime: Any) -> Any:
        result = record(state, runtime)
        relaxing = runtime.context.screen.hooks.timed.cpu_s["relax"]
        seen.append((time.process_time(), relaxing))
        if len(seen) % 5 == 1:
            print(f"{200 * (len(seen) - 1)} proposals, {time.process_time():.0f} CPU s", flush=True)
        return result

    graph.record = watched
    started = time.time()
    machine = Machine(home=folder / "home", cache=False)
    paths = run(directory, campaign, machine=machine, workers=0)
    own = [(b[0] - a[0] - b[1] + a[1]) / 2 for a, b in pairwise(seen)]  # a hundred proposals
    tenth = max(1, len(own) // 10)
    first, second, last = (fmean(x) for x in (own[:tenth], own[tenth : 2 * tenth], own[-tenth:]))
    with open_snapshot(directory) as snapshot:
        made = len(snapshot.execute("SELECT 1 FROM proposals").fetchall())
        candidates = len(snapshot.execute("SELECT 1 FROM candidates").fetchall())
        judged = len(snapshot.execute("SELECT 1 FROM states WHERE state = 'judged'").fetchall())
    print(
        f"{made} proposals, {candidates} candidates, {judged} judged: "
        f"{time.process_time():.0f} CPU s of which relaxing {seen[-1][1]:.0f}, "
        f"{time.time() - started:.0f} s, {rss_mb():.0f} MB, report "
        f"{paths.html.stat().st_size / 1e6:.1f} MB\nbookkeeping of 100 proposals, CPU s: "
        f"{first:.2f} in the first tenth, with the start; {second:.2f} in the second; {last:.2f} "
        "in the last"
    )


def rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def print_chgnet(workspace: Workspace, number: int) -> None:
    """CPU seconds of CHGNet for some of the last cycle's candidates."""
    rows = workspace.store.rows(
        "SELECT candidate_id FROM proposals WHERE candidate_id IS NOT NULL ORDER BY cycle DESC"
    )
    ids = [row["candidate_id"] for row in rows[:PER_CYCLE]]
    chosen = workspace.store.load(Candidate, ids[:: max(1, len(ids) // number)][:number])
    potential = load_potential("chgnet-0.3.0")
    spent = [
        cpu_s(partial(relax_one, c.candidate_id, c.crystal, potential, Protocol()))[0]
        for c in chosen
    ]
    print(f"CHGNet, {len(spent)} of them, default protocol: {math.fsum(spent) / len(spent):.2f} s")


if __name__ == "__main__":
    main()
