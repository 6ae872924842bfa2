"""How many held-out crystals a generator finds, beside template substitution at equal tries.

    python tests/benchmarks/nano_cif.py prepare  TABLE.parquet WORK
    python tests/benchmarks/nano_cif.py validation CORPUS WORK
    python tests/benchmarks/nano_cif.py sample   WORK MODEL --temperature 0.7
    python tests/benchmarks/nano_cif.py judge    WORK
    python tests/benchmarks/nano_cif.py templates WORK CORPUS
    python tests/benchmarks/nano_cif.py attempts WORK        # then, in WORK:
    hullward relax attempts.jsonl --fmax 0.1 --max-steps 300 --json > relaxed.json
    python tests/benchmarks/nano_cif.py heights  WORK MP2020_HULL.parquet

Held out are the quarantined formulas of the table whose primitive cell has at most 20 sites: the
structure lowest in energy of each, in the order of a hash. No model was trained on them, and no
temperature was chosen on them: `validation` in place of `prepare` serves for that. A match is
StructureMatcher's with pymatgen's defaults.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import options, rows_of

from hullward.models.crystal import Crystal
from hullward.models.language import (
    Completion,
    CompletionError,
    Request,
    Sampling,
    crystal_prompt,
    flat_formula,
)
from hullward.tools.crystal.text import (
    AsymmetricUnit,
    asymmetric_unit,
    parse_asymmetric_text,
    parse_cell_text,
    parse_unit,
)
from hullward.training.crystals import CrystalRow, in_quarantine, read_corpus
from hullward.training.crystals.tokenizer import element_features

N_FORMULAS, N_MATCHED, TRIES = 1000, 300, 5


def prepare(table: Path, work: Path) -> None:
    """Write WORK/held_out.parquet: formula, truth as CIF, space group, text; and the densities."""
    from pymatgen.core import Structure

    best: dict[str, tuple[float, str, Any]] = {}
    reference = []
    for row in rows_of(pd.read_parquet(table).drop_duplicates("material_id")):
        structure = Structure.from_str(row.cif, fmt="cif")
        crystal = Crystal.from_structure(structure)
        if not in_quarantine(crystal.formula, crystal.chemsys):
            continue
        reference.append((float(structure.density), len(set(crystal.species))))
        key = (float(row.formation_energy_per_atom), str(row.material_id))
        if crystal.formula not in best or key < best[crystal.formula][:2]:
            best[crystal.formula] = (*key, crystal)
    rows = []
    for formula, (_, material_id, crystal) in best.items():
        try:
            unit = asymmetric_unit(crystal)
        except ValueError:
            continue
        if _primitive_sites(unit) > 20:
            continue
        rows.append(
            {
                "formula": formula,
                "material_id": material_id,
                "space_group": unit.space_group,
                "n_sites": _primitive_sites(unit),
                "prototype": prototype(unit),
                "truth": crystal.model_dump_json(),
                "order": hashlib.sha256(f"benchmark:{formula}".encode()).hexdigest(),
            }
        )
    work.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows).sort_values("order").reset_index(drop=True)
    frame.to_parquet(work / "held_out.parquet")
    pd.DataFrame(reference, columns=["density", "n_elements"]).to_parquet(
        work / "reference.parquet"
    )
    print(
        f"{len(frame)} held-out formulas with at most 20 sites, {len(reference)} structures in all"
    )


def validate(corpus: Path, work: Path) -> None:
    """The same files from the corpus's validation formulas, to choose settings with."""
    rows, reference = [], []
    for row in read_corpus(corpus, "validation"):
        crystal = parse_asymmetric_text(row.unit_text)
        unit = parse_unit(row.unit_text)
        assert isinstance(crystal, Crystal)
        assert isinstance(unit, AsymmetricUnit)
        reference.append((float(crystal.to_structure().density), len(set(crystal.species))))
        if row.n_sites <= 20:
            rows.append(
                {
                    "formula": crystal.formula,
                    "material_id": row.material_id,
                    "space_group": row.space_group,
                    "n_sites": row.n_sites,
                    "prototype": prototype(unit),
                    "truth": crystal.model_dump_json(),
                    "height": row.e_above_hull_ev_per_atom or 0.0,
                }
            )
    work.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows).sort_values(["height", "material_id"]).drop_duplicates("formula")
    frame.to_parquet(work / "held_out.parquet")
    pd.DataFrame(reference, columns=["density", "n_elements"]).to_parquet(
        work / "reference.parquet"
    )
    print(f"{len(frame)} validation formulas with at most 20 sites")


def prototype(unit: AsymmetricUnit) -> str:
    """Space group and, of each element, multiplicities and free coordinates of its orbits."""
    orbits = defaultdict(list)
    for orbit in unit.orbits:
        orbits[orbit.element].append(f"{orbit.position[:-1]}/{len(orbit.free_hundredths)}")
    return f"{unit.space_group}:" + "|".join(sorted(",".join(sorted(o)) for o in orbits.values()))


def _primitive_sites(unit: AsymmetricUnit) -> int:
    from hullward.models import wyckoff

    table = wyckoff.positions(unit.space_group)
    n_sites = sum(table[orbit.position].multiplicity for orbit in unit.orbits)
    return round(n_sites * abs(np.linalg.det(wyckoff.primitive_basis(unit.space_group))))


def read(text: str) -> Crystal | None:
    """The crystal in a text of either form; None where it does not parse."""
    asymmetric = text.split("\n")[0].isdigit()
    found = parse_asymmetric_text(text) if asymmetric else parse_cell_text(text)
    return found if isinstance(found, Crystal) else None


def sample(work: Path, model: Path, temperature: float, top_p: float, form: Any, tag: str) -> None:
    """Write WORK/samples-TAG.json: texts for formulas, for formulas with space group, for no wish.

    Requests without a wish use LLaMat's form: without a formula its sites keep apart better.
    """
    from hullward.models.language import LocalModel

    held = pd.read_parquet(work / "held_out.parquet").head(N_FORMULAS)
    local = LocalModel(model)
    out: dict[str, Any] = {"model": local.name, "temperature": temperature, "top_p": top_p}
    asked = {
        "formula": [crystal_prompt(formula=flat_formula(f), form=form) for f in held.formula],
        "space_group": [
            crystal_prompt(formula=flat_formula(f), space_group=int(g), form=form)
            for f, g in zip(held.formula[:N_MATCHED], held.space_group[:N_MATCHED], strict=True)
        ],
        "unconditional": [crystal_prompt(form="cell")] * len(held),
    }
    for kind, prompts in asked.items():
        requests = [
            Request(
                request_id=f"{kind}-{i}",
                prompt=prompt,
                sampling=Sampling(
                    temperature=temperature,
                    top_p=top_p,
                    max_tokens=400,
                    n=TRIES if kind != "unconditional" and i < N_MATCHED else 1,
                    seed=i,
                ),
            )
            for i, prompt in enumerate(prompts)
        ]
        began = time.monotonic()
        answers = local.complete(requests)
        out[kind] = [texts_of(answer) for answer in answers]
        out[f"{kind}_s"] = time.monotonic() - began
    (work / f"samples-{tag}.json").write_text(json.dumps(out))


def texts_of(answer: Sequence[Completion] | CompletionError) -> list[str]:
    """The texts of an answer, none where the request failed."""
    return [] if isinstance(answer, CompletionError) else [one.text for one in answer]


def judge(work: Path, tag: str) -> dict[str, Any]:
    """Every figure of a sample, all attempts in the denominator."""
    held = pd.read_parquet(work / "held_out.parquet").head(N_FORMULAS)
    out = json.loads((work / f"samples-{tag}.json").read_text())
    figures: dict[str, Any] = {k: out[k] for k in ("model", "temperature", "top_p")}
    first = [read(texts[0]) for texts in out["formula"]]
    same = [c is not None and c.formula == f for c, f in zip(first, held.formula, strict=True)]
    figures["parse"] = float(np.mean([c is not None for c in first]))
    figures["formula_match"] = float(np.mean(same))
    truths = [Crystal.model_validate_json(t) for t in held.truth[:N_MATCHED]]
    for kind in ("formula", "space_group"):
        hits = np.array(
            [
                [matches(read(text), truth) for text in texts]
                for texts, truth in zip(out[kind][:N_MATCHED], truths, strict=True)
            ]
        )
        np.save(work / f"hits-{tag}-{kind}.npy", hits)
        figures[f"match1_{kind}"] = float(hits.mean())
        figures[f"match5_{kind}"] = float(hits.any(axis=1).mean())
    figures.update(unconditional(work, [read(t[0]) for t in out["unconditional"]]))
    figures["seconds"] = {k: round(v, 1) for k, v in out.items() if k.endswith("_s")}
    return figures


def unconditional(work: Path, crystals: Sequence[Crystal | None]) -> dict[str, float]:
    """Distances, uniqueness, distances of distributions to the held-out structures."""
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from scipy.stats import wasserstein_distance

    reference = pd.read_parquet(work / "reference.parquet")
    good = [c for c in crystals if c is not None]
    nearest = np.array([_nearest_a(c) for c in good])
    by_formula = defaultdict(list)
    for crystal in good:
        by_formula[crystal.formula].append(crystal.to_structure())
    distinct = sum(len(StructureMatcher().group_structures(g)) for g in by_formula.values())
    valid = [c.to_structure() for c, d in zip(good, nearest, strict=True) if d >= 0.5]
    n = len(crystals)
    return {
        "u_parse": len(good) / n,
        "u_apart_half_a": float((nearest >= 0.5).sum() / n),
        "u_below_one_a": float((n - (nearest >= 1.0).sum()) / n),
        "u_unique": distinct / n,
        "u_unique_of_parsed": distinct / len(good),
        "u_wasserstein_density": float(
            wasserstein_distance([s.density for s in valid], reference.density)
        ),
        "u_wasserstein_elements": float(
            wasserstein_distance([len(s.elements) for s in valid], reference.n_elements)
        ),
    }


def _nearest_a(crystal: Crystal) -> float:
    """The shortest distance between two atoms, Å, images included."""
    structure = crystal.to_structure()
    distances = structure.distance_matrix
    np.fill_diagonal(distances, min(structure.lattice.abc))
    return float(distances.min())


def matches(found: Crystal | None, truth: Crystal) -> bool:
    """Whether both are one structure for StructureMatcher."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    if found is None or found.formula != truth.formula:
        return False
    return bool(StructureMatcher().fit(found.to_structure(), truth.to_structure()))


Kind = tuple[str, tuple[str, ...]]  # prototype, and which element sits on which orbits


def template_pool(corpus: Path) -> Any:
    """(training structures by their numbers of atoms, the prototypes seen)."""
    pool: dict[tuple[int, ...], list[tuple[CrystalRow, dict[str, int], str]]] = defaultdict(list)
    seen = set()
    for row in read_corpus(corpus, "train"):
        unit = parse_unit(row.unit_text)
        assert isinstance(unit, AsymmetricUnit)
        counts = _counts(row.formula)
        seen.add(prototype(unit))
        pool[tuple(sorted(counts.values()))].append((row, counts, prototype(unit)))
    return pool, seen


def templates(work: Path, corpus: Path) -> None:
    """Write WORK/hits-templates-*.npy: which of the first tries match, without and with group."""
    held = pd.read_parquet(work / "held_out.parquet").head(N_MATCHED)
    pool, seen = template_pool(corpus)
    held["seen"] = held.prototype.isin(seen)
    held[["formula", "seen", "n_sites", "space_group"]].to_parquet(work / "seen.parquet")
    for kind in ("formula", "space_group"):
        hits = np.zeros((len(held), 2 * TRIES), dtype=bool)
        for i, wanted in enumerate(rows_of(held)):
            group = int(wanted.space_group) if kind == "space_group" else None
            truth = Crystal.model_validate_json(wanted.truth)
            made = substituted(flat_formula(wanted.formula), pool, group)
            for k, (_, crystal) in zip(range(2 * TRIES), made, strict=False):
                hits[i, k] = matches(crystal, truth)
        np.save(work / f"hits-templates-{kind}.npy", hits)
        print(kind, "1:", hits[:, 0].mean(), "5:", hits[:, :TRIES].any(axis=1).mean(),
              "10:", hits.any(axis=1).mean())  # fmt: skip


def substituted(formula: str, pool: Any, group: int | None) -> Iterator[tuple[Kind, Crystal]]:
    """Known structures of the same anonymous formula, nearest elements first, each kind once."""
    wanted = _counts(formula)
    ranked = []
    for row, counts, proto in pool[tuple(sorted(wanted.values()))]:
        if group is None or row.space_group == group:
            distance, mapping = _nearest_mapping(counts, wanted)
            ranked.append((distance, row.material_id, row, mapping, proto))
    taken = set()
    for _, _, row, mapping, proto in sorted(ranked, key=lambda r: r[:2]):
        unit = parse_unit(row.unit_text)
        assert isinstance(unit, AsymmetricUnit)
        key = (proto, placed(unit, mapping))
        if key not in taken:
            taken.add(key)
            found = unit.to_crystal()
            species = [mapping[s] for s in found.species]
            yield key, Crystal.from_arrays(found.lattice, species, found.frac_coords)


def placed(unit: AsymmetricUnit, mapping: dict[str, str]) -> tuple[str, ...]:
    """Which element sits on which orbits, as far as multiplicities tell."""
    return tuple(sorted(f"{mapping[o.element]}{o.position[:-1]}" for o in unit.orbits))


def _counts(flat: str) -> dict[str, int]:
    import re

    return {s: int(n or 1) for s, n in re.findall(r"([A-Z][a-z]?)([0-9]*)", flat)}


def _nearest_mapping(old: dict[str, int], new: dict[str, int]) -> tuple[float, dict[str, str]]:
    """Old elements to new ones of the same amount, least exchanged in all."""
    from scipy.optimize import linear_sum_assignment

    a, b = list(old), list(new)
    cost = np.array(
        [
            [
                old[x] * float(np.linalg.norm(_described(x) - _described(y)))
                if old[x] == new[y]
                else 1e6
                for y in b
            ]
            for x in a
        ]
    )
    left, right = linear_sum_assignment(cost)
    total = float(cost[left, right].sum()) / sum(old.values())
    return total, {a[i]: b[j] for i, j in zip(left, right, strict=True)}


@cache
def _described(symbol: str) -> np.ndarray:
    return element_features(symbol)


def attempts(work: Path, tag: str, number: int) -> None:
    """Write WORK/attempts.jsonl: the first attempt at each of the first formulas that parses."""
    texts = json.loads((work / f"samples-{tag}.json").read_text())["formula"][:number]
    with (work / "attempts.jsonl").open("w") as file:
        for text in texts:
            if (crystal := read(text[0])) is not None and _nearest_a(crystal) >= 0.5:
                file.write(crystal.model_dump_json() + "\n")
    (work / "attempts.json").write_text(json.dumps({"asked": len(texts)}))


def heights(work: Path, hull: Path) -> dict[str, Any]:
    """Shares of all attempts within 0.1 and 0 eV/atom of the hull; what has no row is a failure."""
    from hullward.tools.reference.sources import mp2020_elements

    asked = json.loads((work / "attempts.json").read_text())["asked"]
    results = json.loads((work / "relaxed.json").read_text())["results"]
    table = pd.read_parquet(hull).drop_duplicates("formula").set_index("formula")
    known, zero, found = table.hull_energy_per_atom, mp2020_elements(), []
    for one in results:
        if one["converged"] and one["formula"] in known.index:
            species = one["crystal"]["species"]
            elements = sum(zero[symbol] for symbol in species) / len(species)
            found.append(one["energy_ev_per_atom"] - elements - float(known[one["formula"]]))
    values = np.array(found)
    return {
        "asked": asked,
        "relaxed": len(results),
        "converged": sum(bool(one["converged"]) for one in results),
        "judged": len(values),
        "within_0.1": float((values <= 0.1).sum() / asked),
        "at_or_below_0": float((values <= 0).sum() / asked),
        "median": float(np.median(values)),
        "seconds": sum(one["cpu_s"] for one in results),
    }


def together(work: Path, tag: str) -> dict[str, Any]:
    """Templates and the model at equal total tries, and what each finds by kind of formula."""
    figures: dict[str, Any] = {}
    seen = pd.read_parquet(work / "seen.parquet")
    for kind in ("formula", "space_group"):
        ours = np.load(work / f"hits-{tag}-{kind}.npy")
        theirs = np.load(work / f"hits-templates-{kind}.npy")
        alone = theirs.any(axis=1)
        both = theirs[:, :TRIES].any(axis=1) | ours.any(axis=1)
        figures[kind] = {
            "templates_1": float(theirs[:, 0].mean()),
            "templates_5": float(theirs[:, :TRIES].any(axis=1).mean()),
            "templates_10": float(alone.mean()),
            "templates_5_and_model_5": float(both.mean()),
            "gain": float(both.mean() / alone.mean()),
            "model_5_seen_prototype": float(ours.any(axis=1)[seen.seen].mean()),
            "model_5_new_prototype": float(ours.any(axis=1)[~seen.seen].mean()),
            "templates_5_new_prototype": float(theirs[:, :TRIES].any(axis=1)[~seen.seen].mean()),
            "new_prototypes": int((~seen.seen).sum()),
            "model_5_by_sites": {
                label: [float(ours.any(axis=1)[keep].mean()), int(keep.sum())]
                for label, keep in (
                    ("<=6", seen.n_sites <= 6),
                    ("7-12", (seen.n_sites > 6) & (seen.n_sites <= 12)),
                    (">12", seen.n_sites > 12),
                )
            },
        }
    return figures


def main() -> None:
    warnings.simplefilter("ignore")
    parser = options(__doc__)
    parser.add_argument(
        "stage",
        choices=["prepare", "validation", "sample", "judge", "templates", "attempts", "heights"],
    )
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--form", default="asymmetric")
    parser.add_argument("--tag", default="nano")
    parser.add_argument("--number", type=int, default=300, help="attempts to relax")
    given = parser.parse_args()
    if given.stage == "prepare":
        prepare(*given.paths)
    elif given.stage == "validation":
        validate(*given.paths)
    elif given.stage == "templates":
        templates(*given.paths)
    elif given.stage == "sample":
        work, model = given.paths
        sample(work, model, given.temperature, given.top_p, given.form, given.tag)
    elif given.stage == "attempts":
        attempts(given.paths[0], given.tag, given.number)
    elif given.stage == "heights":
        print(json.dumps(heights(*given.paths), indent=1))
    else:
        work = given.paths[0]
        figures = judge(work, given.tag)
        if (work / "hits-templates-formula.npy").is_file():
            figures["together"] = together(work, given.tag)
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
