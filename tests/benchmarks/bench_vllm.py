"""Whether a checkpoint writes the same through vLLM as in this process, and which is faster.

    HULLWARD_VLLM_PYTHON=... python tests/benchmarks/bench_vllm.py FOLDER [--samples 8]

FOLDER is a crystal generator such as hullward-nano-cif, in Hugging Face's layout. Prompts ask for
formulas of the embedded reference's binary compounds. Three comparisons: the likelihoods both give
to the same texts; the shares of texts that are crystals, and crystals of the requested formula,
with the probability of as large a difference between equal models; and tokens per second.
"""

from __future__ import annotations

import json
import math
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import options

from hullward.agents.settings import read_machine
from hullward.models.crystal import Crystal
from hullward.models.language import (
    CompletionError,
    LocalModel,
    Request,
    Sampling,
    crystal_prompt,
    flat_formula,
    model_card,
)
from hullward.models.serving import RetryPolicy, ServedModel, ServePlan, ServerProcess, find_vllm
from hullward.tools.crystal.text import parse_asymmetric_text, parse_cell_text, split_completion
from hullward.tools.reference import load_reference

ELEMENTS = ("Li", "Na", "Mg", "Al", "Ti", "Mn", "Fe", "Ni", "Zn", "Ba")
ANIONS = ("O", "S", "F", "Cl", "N")


def prompts(n: int, form: Any) -> list[tuple[str, str]]:
    """(formula, prompt) of stable binary compounds."""
    reference = load_reference("embedded")
    found: dict[str, None] = {}
    for metal in ELEMENTS:
        for anion in ANIONS:
            for phase in reference.hull("-".join(sorted((metal, anion)))).stable_phases:
                if len(phase.elements) == 2:
                    found[flat_formula(phase.formula)] = None
    return [(f, crystal_prompt(formula=f, form=form)) for f in list(found)[:n]]


def read(text: str, form: str) -> Crystal | None:
    if form == "cell":
        found = parse_cell_text(split_completion(text)[0])
    else:
        found = parse_asymmetric_text(text)
    return found if isinstance(found, Crystal) else None


def write(model: Any, asked: Sequence[tuple[str, str]], form: str, sampling: Sampling) -> dict:
    """Counts and time of all answers; two requests are completed first, to warm up."""
    requests = [
        Request(request_id=f"{i}", prompt=prompt, sampling=sampling)
        for i, (_, prompt) in enumerate(asked)
    ]
    model.complete(requests[:2])
    started = time.perf_counter()
    answers = model.complete(requests)
    took_s = time.perf_counter() - started
    n = len(requests) * sampling.n
    valid = matched = tokens = 0
    for (formula, _), answer in zip(asked, answers, strict=True):
        if isinstance(answer, CompletionError):
            raise answer
        for one in answer:
            tokens += one.completion_tokens or 0
            crystal = read(one.text, form)
            valid += crystal is not None
            matched += crystal is not None and flat_formula(crystal.formula) == formula
    return {"n": n, "valid": valid, "matched": matched, "tokens": tokens, "wall_s": took_s}


def probability(one: int, other: int, n: int) -> float:
    """Two-sided probability of a difference as large between two samples of n of one rate."""
    pooled = (one + other) / (2 * n)
    error = math.sqrt(2 * pooled * (1 - pooled) / n)
    return 1.0 if error == 0 else math.erfc(abs(one - other) / n / error / math.sqrt(2))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--form", choices=["cell", "asymmetric"], default="asymmetric")
    parser.add_argument("--url", help="a server that serves the folder already, under its name")
    given = parser.parse_args()
    python = read_machine().vllm_python or sys.executable
    card = model_card(str(given.folder))
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    plan = ServePlan(
        python=python, model=card.source, name=card.name, context_tokens=card.context_tokens,
        dtype="float32", port=port, cpu_cache_gb=1, more=("--enforce-eager",),
    )  # fmt: skip
    if given.url:
        report(given, card.name, given.url, "vLLM")
        return
    with ServerProcess(plan.command(), lambda line: None) as child:
        started = time.perf_counter()
        child.wait_until_ready(plan.url, plan.name, 1800)
        print(f"ready after {time.perf_counter() - started:.0f} s")
        report(given, card.name, plan.url, find_vllm(python))


def report(given: Any, name: str, url: str, vllm: str) -> None:
    asked = prompts(given.prompts, given.form)
    served = ServedModel(url, name, policy=RetryPolicy(read_s=600, total_s=600, concurrency=64))
    local = LocalModel(given.folder)
    drawn = Sampling(temperature=0.8, max_tokens=200, n=given.samples, seed=1)
    texts = [a[0].text for a in local.complete(
        [Request(request_id=p, prompt=p, sampling=Sampling(max_tokens=200)) for _, p in asked[:10]]
    ) if not isinstance(a, CompletionError)]  # fmt: skip
    pairs = [(p, t) for (_, p), t in zip(asked, texts, strict=False)]
    off = max(abs(a - b) for a, b in zip(local.score(pairs), served.score(pairs), strict=True))
    print(f"{vllm}: largest difference of mean log-probability of {len(pairs)} texts: {off:.1e}")
    rows = {"in process": write(local, asked, given.form, drawn)}
    rows["vLLM"] = write(served, asked, given.form, drawn)
    for label, row in rows.items():
        print(f"{label}: {json.dumps(row)}, {row['tokens'] / row['wall_s']:.0f} tokens/s")
    one, other = rows.values()
    for what in ("valid", "matched"):
        p = probability(one[what], other[what], one["n"])
        print(f"{what}: probability of this difference {p:.2f}")


if __name__ == "__main__":
    main()
