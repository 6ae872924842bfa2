"""Add a model's own sound answers to a corpus, so that it learns them again.

    python -m hullward.training.crystals.own_answers MODEL CORPUS OUT --free 8000 --asked 5000

It asks MODEL (an exported folder) for any crystal in the cell form, and in the asymmetric form for
formulas of the corpus with similar elements exchanged. It keeps an answer that parses, has the
requested formula, keeps atoms apart, takes about the volume that its elements take elsewhere, and
may be learnt: one answer for each formula, none for a formula of the corpus. OUT holds CORPUS and
these answers; the validation part stays as it is. No energy is computed for this choice.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hullward.models.crystal import Crystal
from hullward.models.errors import HullwardError
from hullward.models.language import (
    CompletionError,
    LanguageModel,
    LocalModel,
    Request,
    Sampling,
    crystal_prompt,
    flat_formula,
)
from hullward.tools.crystal.text import parse_asymmetric_text, parse_cell_text
from hullward.tools.evaluation import closest_a
from hullward.training.crystals.corpus import (
    CrystalRow,
    corpus_row,
    corpus_sha256,
    may_be_learnt,
    read_corpus,
    write_corpus,
)
from hullward.training.crystals.substituted import Exchange

APART_A = 1.0  # least distance of two atoms, images included
# largest ratio, and inverse of the least, to the volume that the elements take elsewhere
ROOM = 1.6
SAMPLING = Sampling(temperature=0.9, top_p=0.98, max_tokens=400)


def sound_answers(
    model: LanguageModel,
    rows: Sequence[CrystalRow],
    *,
    free: int,
    asked: int,
    seed: int = 0,
    sampling: Sampling = SAMPLING,
) -> tuple[list[CrystalRow], Counter[str]]:
    """(answers to learn, counts of all by outcome), of `free` open and `asked` formula requests."""
    exchange = Exchange(rows)
    known = {row.formula for row in rows}
    wanted: list[str | None] = [None] * free
    wanted += _formulas(exchange, rows, known, asked, seed)
    requests = [
        Request(
            request_id=f"own-{i}",
            prompt=crystal_prompt(form="cell")
            if formula is None
            else crystal_prompt(formula=formula, form="asymmetric"),
            sampling=replace(sampling, seed=seed * 1_000_003 + i),
        )
        for i, formula in enumerate(wanted)
    ]
    kept: list[CrystalRow] = []
    fate: Counter[str] = Counter()
    for i, (formula, answer) in enumerate(zip(wanted, model.complete(requests), strict=True)):
        if isinstance(answer, CompletionError):
            fate[answer.kind] += 1
            continue
        row = _row(f"own-{i}", answer[0].text, formula, exchange)
        if isinstance(row, str):
            fate[row] += 1
        elif row.formula in known:
            fate["known formula"] += 1
        else:
            fate["kept"] += 1
            known.add(row.formula)
            kept.append(row)
    return kept, fate


def _formulas(
    exchange: Exchange, rows: Sequence[CrystalRow], known: set[str], number: int, seed: int
) -> list[str]:
    """New formulas: those of known crystals with similar elements exchanged."""
    rng = random.Random(f"{seed}:own")
    found: dict[str, None] = {}
    for row in rng.choices(rows, k=8 * number):
        formula = exchange.like(row, rng).formula
        if formula not in known:
            found[formula] = None
        if len(found) == number:
            break
    return list(found)


def _row(name: str, text: str, formula: str | None, exchange: Exchange) -> CrystalRow | str:
    """The answer as a row to learn, or the reason why it is not one."""
    parse = parse_cell_text if formula is None else parse_asymmetric_text
    crystal = parse(text)
    if not isinstance(crystal, Crystal):
        return "does not parse"
    flat = flat_formula(crystal.formula)
    if formula is not None and flat != formula:
        return "another formula"
    if not may_be_learnt(flat):
        return "held back"
    if closest_a(crystal) < APART_A:
        return "atoms too close"
    if strange := set(crystal.species) - exchange.elements:
        return f"{min(strange)} not in the corpus"
    ratio = crystal.volume_a3 / exchange.room_a3(crystal.species)
    if not 1 / ROOM <= ratio <= ROOM:
        return "too dense or too thin"
    try:
        return corpus_row(name, crystal, None)
    except ValueError:
        return "the asymmetric form cannot hold it"


def main(arguments: list[str] | None = None) -> int:
    """Make the corpus from the command line; the exit code."""
    parser = argparse.ArgumentParser(description="add a model's own sound answers to a corpus")
    parser.add_argument("model", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--free", type=int, default=8000)
    parser.add_argument("--asked", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=SAMPLING.temperature)
    given = parser.parse_args(arguments)
    try:
        rows = read_corpus(given.corpus, "train")
        validation = read_corpus(given.corpus, "validation")
        model = LocalModel(given.model)
        own, fate = sound_answers(
            model, rows, free=given.free, asked=given.asked, seed=given.seed,
            sampling=replace(SAMPLING, temperature=given.temperature),
        )  # fmt: skip
        source: dict[str, Any] = {
            "corpus_sha256": corpus_sha256(given.corpus),
            "model": model.name,
            "sampling": {"temperature": given.temperature, "top_p": SAMPLING.top_p},
            "seed": given.seed,
            "own_answers": dict(sorted(fate.items())),
        }
        about = write_corpus(given.out, {"train": [*rows, *own], "validation": validation}, source)
    except HullwardError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(about, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
