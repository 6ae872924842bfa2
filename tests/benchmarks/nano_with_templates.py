"""Whether the nano model finds crystals that templates miss, at an equal total of tries.

    python tests/benchmarks/nano_with_templates.py sample WORK MODEL [--temperature 0.9]
    python tests/benchmarks/nano_with_templates.py judge  WORK CORPUS [--split SPLITS.json]

WORK is a folder of `nano_cif.py prepare` or `validation`. A try is one structure of a new kind
(prototype, and which element sits on which orbits) that would be relaxed and judged. Templates come
in the order of their elements' distance, the model's answers, held to the formula by the grammar,
in the order of their frequency; a kind that was tried already is no try. The first tries of each
total are templates, then come the model's new kinds, then templates again. The number that comes
first is chosen on validation formulas (`judge` without --split writes WORK/splits.json) and read
with --split.
"""

from __future__ import annotations

import json
import time
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import options, rows_of
from nano_cif import (
    N_MATCHED,
    matches,
    placed,
    prototype,
    substituted,
    template_pool,
    texts_of,
)

from hullward.models.crystal import Crystal
from hullward.models.language import Request, Sampling, crystal_prompt, flat_formula
from hullward.tools.crystal.text import (
    AsymmetricUnit,
    crystal_grammar,
    parse_asymmetric_text,
    parse_unit,
    unit_grammar,
)

TOTALS = (1, 2, 4, 6, 10)
SAMPLES = 24
KINDS = ("formula", "space_group")


def sample(work: Path, model: Path, temperature: float, top_p: float) -> None:
    """Write WORK/wide.json: answers to each of the first formulas, without and with the group."""
    from hullward.models.language import LocalModel

    held = pd.read_parquet(work / "held_out.parquet").head(N_MATCHED)
    local = LocalModel(model)
    out: dict[str, Any] = {"model": local.name, "temperature": temperature, "top_p": top_p}
    sampling = Sampling(temperature=temperature, top_p=top_p, max_tokens=400, n=SAMPLES)
    for kind in KINDS:
        requests = []
        for i, row in enumerate(rows_of(held)):
            group = int(row.space_group) if kind == "space_group" else None
            flat = flat_formula(row.formula)
            grammar = unit_grammar(crystal_grammar(formula=row.formula, max_atoms=20), group)
            requests.append(
                Request(
                    request_id=f"{kind}-{i}",
                    prompt=crystal_prompt(formula=flat, space_group=group, form="asymmetric"),
                    sampling=replace(sampling, seed=i),
                    constraint=grammar.constraint(),
                )
            )
        began = time.monotonic()
        answers = local.complete(requests)
        out[kind] = [texts_of(answer) for answer in answers]
        out[f"{kind}_s"] = round(time.monotonic() - began, 1)
    (work / "wide.json").write_text(json.dumps(out))


def judge(work: Path, corpus: Path, splits: dict[str, dict[str, int]] | None) -> dict[str, Any]:
    """Shares of the formulas found in each total of tries, by templates alone and by both."""
    held = pd.read_parquet(work / "held_out.parquet").head(N_MATCHED)
    out = json.loads((work / "wide.json").read_text())
    pool, _ = template_pool(corpus)
    figures: dict[str, Any] = {k: v for k, v in out.items() if k not in KINDS}
    chosen: dict[str, dict[str, int]] = {}
    for kind in KINDS:
        tries = []
        for row, texts in zip(rows_of(held), out[kind], strict=True):
            group = int(row.space_group) if kind == "space_group" else None
            truth = Crystal.model_validate_json(row.truth)
            known = dict(substituted(flat_formula(row.formula), pool, group))
            own = _kinds(texts)
            tries.append(
                (
                    [(key, matches(crystal, truth)) for key, crystal in known.items()],
                    [(key, matches(crystal, truth)) for key, crystal in own.items()],
                )
            )
        chosen[kind] = {}
        for total in TOTALS:
            alone = np.mean([any(hit for _, hit in known[:total]) for known, _ in tries])
            model = np.mean([any(hit for _, hit in own[:total]) for _, own in tries])
            shares = [
                np.mean([_together(known, own, first, total) for known, own in tries])
                for first in range(total + 1)
            ]
            first = splits[kind][str(total)] if splits else int(np.argmax(shares))
            chosen[kind][str(total)] = first
            figures[f"{kind}_{total}"] = {
                "templates": float(alone),
                "model": float(model),
                "together": float(shares[first]),
                "templates_first": first,
                "gain": float(shares[first] / alone),
            }
        figures[f"{kind}_any_template"] = float(
            np.mean([any(hit for _, hit in known) for known, _ in tries])
        )
    if splits is None:
        (work / "splits.json").write_text(json.dumps(chosen))
    return figures


def _kinds(texts: list[str]) -> dict[Any, Crystal]:
    """One structure of each kind, most frequent kinds first."""
    found: dict[Any, Crystal] = {}
    number: Counter[Any] = Counter()
    for text in texts:
        unit = parse_unit(text)
        crystal = parse_asymmetric_text(text)
        if isinstance(unit, AsymmetricUnit) and isinstance(crystal, Crystal):
            same = {o.element: o.element for o in unit.orbits}
            key = (prototype(unit), placed(unit, same))
            number[key] += 1
            found.setdefault(key, crystal)
    return {key: found[key] for key, _ in number.most_common()}


def _together(
    known: list[tuple[Any, bool]], own: list[tuple[Any, bool]], first: int, total: int
) -> bool:
    """Whether `first` templates, then the model, then templates again find it in `total` tries."""
    tried: dict[Any, list[bool]] = {}
    for key, hit in [*known[:first], *own, *known[first:]]:
        if key not in tried and len(tried) == total:
            break
        # a kind that both propose is one try, with the structure that came first
        tried.setdefault(key, [hit])
    return any(hits[0] for hits in tried.values())


def main() -> None:
    warnings.simplefilter("ignore")
    parser = options(__doc__)
    parser.add_argument("stage", choices=["sample", "judge"])
    parser.add_argument("work", type=Path)
    parser.add_argument("other", type=Path, help="MODEL or CORPUS")
    parser.add_argument("--temperature", type=float, default=0.9)
    parser.add_argument("--top-p", type=float, default=0.98)
    parser.add_argument("--split", type=Path)
    given = parser.parse_args()
    if given.stage == "sample":
        sample(given.work, given.other, given.temperature, given.top_p)
    else:
        splits = json.loads(given.split.read_text()) if given.split else None
        print(json.dumps(judge(given.work, given.other, splits), indent=1))


if __name__ == "__main__":
    main()
