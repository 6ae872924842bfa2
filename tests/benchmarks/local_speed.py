"""How fast a small model proposes in this process: free, and held to both grammars.

    python tests/benchmarks/local_speed.py FOLDER [--samples 256] [--threads 2]

FOLDER is a checkpoint such as hullward-nano-cif. Prompts ask for formulas; a proposal counts as
valid when it parses, has the formula and no pair of atoms under 0.5 Å. Times are wall and CPU.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from hullward.models.crystal import Crystal
from hullward.models.crystal_prompts import crystal_prompt, flat_formula
from hullward.models.language import CompletionError, Request, Sampling
from hullward.models.local_model import LocalModel
from hullward.tools.crystal_grammar import crystal_grammar
from hullward.tools.generator_inputs import parse_text
from hullward.tools.generator_metrics import closest_a
from hullward.tools.unit_grammar import unit_grammar

FORMULAS = ("SrTiO3", "NaCl", "MgAl2O4", "LiFePO4", "Fe2O3", "CaF2", "K2PtCl6", "GaAs")


def main() -> None:
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = LocalModel(given.folder)
    for form in ("asymmetric", "cell"):
        for held in ("free", "grammar", "grammar and distance mask"):
            if held == "grammar and distance mask" and form == "asymmetric":
                continue
            requests = [_request(i, form, held) for i in range(given.samples)]
            wall, cpu = time.monotonic(), time.process_time()
            answers = model.complete(requests)
            wall, cpu = time.monotonic() - wall, time.process_time() - cpu
            texts = [c for a in answers if not isinstance(a, CompletionError) for c in a]
            pairs = [(FORMULAS[i % len(FORMULAS)], parse_text(c.text)) for i, c in enumerate(texts)]
            parsed = [(f, c) for f, c in pairs if isinstance(c, Crystal)]
            right = [c for f, c in parsed if flat_formula(c.formula) == flat_formula(f)]
            valid = sum(closest_a(c) >= 0.5 for c in right)
            tokens = sum(c.completion_tokens or 0 for c in texts) / len(texts)
            print(
                f"{form}, {held}: parsed {len(parsed)}, formula {len(right)}, valid {valid} of "
                f"{given.samples}; {tokens:.0f} tokens each; {wall:.1f} s wall, {cpu:.1f} s CPU: "
                f"{valid / wall:.1f} valid/s wall, {valid / cpu:.1f} valid/s CPU"
            )


def _request(number: int, form: str, held: str) -> Request:
    formula = FORMULAS[number % len(FORMULAS)]
    constraint = None
    if held != "free":
        mask = 1.0 if "mask" in held else None
        wishes = crystal_grammar(formula=formula, max_atoms=28, min_distance_a=mask)
        if form == "asymmetric":
            constraint = unit_grammar(wishes).constraint()
        else:
            constraint = wishes.constraint(server=False)
    return Request(
        request_id=f"{form}-{held}-{number}",
        prompt=crystal_prompt(formula=flat_formula(formula), form=form),
        sampling=Sampling(temperature=0.7, max_tokens=300, seed=number),
        constraint=constraint,
    )


if __name__ == "__main__":
    main()
