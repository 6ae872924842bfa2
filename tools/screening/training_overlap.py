"""Did the model that proposed a candidate learn from it? Told by the hashes its folder holds.

A formula or a parent that was learnt makes a candidate no less stable; it makes it less of a
discovery by the model. Where a model's folder has no hashes, as LLaMat's, that is what is said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hullward.models.errors import InputError
from hullward.models.language import flat_formula
from hullward.tools.records import TrainingOverlap
from hullward.tools.store import Store

KIN = ("known", "lanthanide_swap", "substitution")  # labels whose match is a known phase


def audit(
    store: Store, folder_of: Callable[[str], Path | None], proposer: str | None = None
) -> list[TrainingOverlap]:
    """Ask for every candidate that a language model proposed, and store the answers.

    folder_of: a model's folder, None where it is not here.  proposer: the model behind proposals
    that name none, as those of a screened file.
    """
    rows = store.rows(
        """SELECT r.candidate_id, r.formula, p.model, r.novelty_kind, r.novelty_match
           FROM results r JOIN candidates c USING (proposal_id) JOIN proposals p USING (proposal_id)
           ORDER BY p.cycle, p.request_id, p."index" """
    )
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if model := row["model"] or proposer:
            by_model.setdefault(model, []).append(row)
    found = [one for m, asked in by_model.items() for one in _asked(m, folder_of(m), asked)]
    store.add(found)
    return found


def _asked(
    model: str, folder: Path | None, rows: Sequence[dict[str, Any]]
) -> list[TrainingOverlap]:
    matches = [_parent(row) for row in rows]
    try:
        if folder is None:
            raise InputError("no folder")
        formulas: Sequence[bool | None] = learnt_formulas(
            folder, [flat_formula(row["formula"]) for row in rows]
        )
        ids: Sequence[bool | None] = learnt_ids(folder, [match or "" for match in matches])
    except InputError:
        formulas = ids = [None] * len(rows)
    return [
        TrainingOverlap(
            candidate_id=row["candidate_id"],
            model=model,
            formula_seen=formula,
            match_id=match,
            match_seen=seen if match else None,
            words=_words(model, formula, match, seen if match else None),
        )
        for row, match, formula, seen in zip(rows, matches, formulas, ids, strict=True)
    ]


def _parent(row: dict[str, Any]) -> str | None:
    """The material's own id: a table that lists one twice has 'mp-1#7' for the second."""
    match = row["novelty_match"] if row["novelty_kind"] in KIN else None
    return str(match).split("#")[0] if match else None


def _words(model: str, formula: bool | None, match: str | None, seen: bool | None) -> str:
    name = Path(model).name
    if formula is None:
        return f"unknown training data: {name} does not say what it learnt from"
    learnt = [w for w, hit in (("its formula", formula), (f"its parent {match}", seen)) if hit]
    if learnt:
        return f"{name} had learnt from {' and '.join(learnt)}"
    parent = f", nor its parent {match}" if match else ""
    return f"not its formula{parent} was in what {name} learnt from"


IDS, FORMULAS = "learnt_ids.npy", "learnt_formulas.npy"


def digest(word: str) -> int:
    """The first 8 bytes of its sha256 as a number."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")


def learnt_ids(model: Path, material_ids: Sequence[str]) -> list[bool]:
    """Which of these materials a model was trained or validated on.

    Raises InputError where its folder does not say.
    """
    return _are_among(model / IDS, material_ids)


def learnt_formulas(model: Path, flat_formulas: Sequence[str]) -> list[bool]:
    """Which of these formulas, spelt by `models.crystal_prompts.flat_formula`, it has seen.

    Raises InputError where its folder does not say.
    """
    return _are_among(model / FORMULAS, flat_formulas)


def _are_among(path: Path, words: Sequence[str]) -> list[bool]:
    try:
        known = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read, so nobody knows what was learnt: {error}"
        ) from None
    return [bool(hit) for hit in np.isin([digest(word) for word in words], known)]
