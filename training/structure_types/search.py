"""Ask nano for crystals, and relax those that may be new structure types.

Every answer and every relaxation is appended to a file in a folder at once and not computed again,
so a stop costs only the current batch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from hullward.models.language import CompletionError, LanguageModel
from hullward.tools.crystal import AnonymousFormula, anonymous_amounts
from hullward.tools.crystal.text import asymmetric_unit, parse_asymmetric_text, parse_unit
from hullward.tools.prototypes import (
    Prototype,
    TypedCrystal,
    TypeLibrary,
    type_class,
    typed_crystal,
)
from hullward.tools.records import Flaw, Protocol, Relaxation
from hullward.tools.relax import relax_many
from hullward.tools.screening import Limits, check_crystal
from hullward.training.crystals import is_quarantined
from hullward.training.structure_types.questions import TypeQuestion

AT_ONCE = 256  # answers between two writes
ANSWERS, RELAXED = "said.jsonl", "relaxed.jsonl"
LEAST_SPACE_GROUP = 2  # a crystal without any symmetry is no type

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TypeAnswer:
    """One answer that may show a new type."""

    typed: TypedCrystal
    row: Mapping[str, Any]  # its question and how it was sampled


def ask(
    model: LanguageModel,
    questions: Sequence[TypeQuestion],
    folder: Path,
    limits: Limits,
    supported: frozenset[str],
    progress: Progress,
) -> None:
    """Put every question that `folder` holds no answer to; store each answer with its fate."""
    answered = Counter(row["request"] for row in stored_answers(folder))
    left = [q for q in questions if answered[q.request.request_id] < q.request.sampling.n]
    with _appending(folder / ANSWERS) as file:
        while left:
            batch = [left.pop(0)]
            while left and sum(q.request.sampling.n for q in batch) < AT_ONCE:
                batch.append(left.pop(0))
            answers = model.complete([q.request for q in batch])
            for question, answer in zip(batch, answers, strict=True):
                request = question.request
                texts = (
                    [""] * request.sampling.n
                    if isinstance(answer, CompletionError)
                    else [completion.text for completion in answer]
                )
                for index, text in enumerate(texts):
                    row = {
                        "request": request.request_id,
                        "index": index,
                        "formula": question.formula,
                        "temperature": request.sampling.temperature,
                        "top_p": request.sampling.top_p,
                        "seed": request.sampling.seed,
                        "text": text,
                        **fate_of(text, limits, supported),
                    }
                    file.write(json.dumps(row) + "\n")
            file.flush()
            progress("ask", len(questions) - len(left), len(questions))


def fate_of(text: str, limits: Limits, supported: frozenset[str]) -> dict[str, str]:
    """The fate of an answer, with the canonical text of one that has a type."""
    crystal = parse_asymmetric_text(text)
    if isinstance(crystal, Flaw):
        return {"fate": "parse"}
    if isinstance(check_crystal(crystal, limits, supported), Flaw):
        return {"fate": "check"}
    if is_quarantined(crystal):
        return {"fate": "quarantined"}
    if len(set(crystal.species)) < 2:
        return {"fate": "element"}
    found = typed_crystal(crystal)
    if (
        found is None
        or found.of_class.space_group < LEAST_SPACE_GROUP
        or found.crystal.n_atoms > limits.max_atoms
    ):
        return {"fate": "no symmetry"}
    return {"fate": "typed", "typed": found.text}


def _appending(path: Path) -> TextIO:
    """The file, open to append; a last line that a kill left unfinished gets its end."""
    file = path.open("a", encoding="utf-8")
    if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
        file.write("\n")
    return file


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a file, none where there is no file."""
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                try:
                    yield json.loads(line)
                except ValueError:  # the line a kill left unfinished
                    continue


def stored_answers(folder: Path) -> Iterator[dict[str, Any]]:
    """Every answer once: a request cut short by a stop was put again."""
    seen = set()
    for row in json_lines(folder / ANSWERS):
        place = (row["request"], row["index"])
        if place not in seen:
            seen.add(place)
            yield row


def known_types(prototypes: Sequence[Prototype], max_atoms: int) -> TypeLibrary:
    """The types of compounds among these prototypes, of cells up to `max_atoms`.

    A prototype whose symmetry is not found is left out.
    """
    types = TypeLibrary()
    for prototype in prototypes:
        if prototype.n_atoms > max_atoms or len(set(prototype.species)) < 2:
            continue
        crystal = prototype.crystal
        try:
            of_class = type_class(asymmetric_unit(crystal))
        except ValueError:
            continue
        types.add(prototype.prototype_id, crystal, of_class)
    return types


def read_typed(text: str) -> TypedCrystal:
    """The type that `fate_of` wrote as text; raises ValueError for any other text."""
    unit = parse_unit(text)
    if isinstance(unit, Flaw):
        raise ValueError(unit.detail)
    return TypedCrystal(text, unit.to_crystal(), type_class(unit))


def new_types(folder: Path, known: TypeLibrary) -> tuple[list[list[TypeAnswer]], Counter[str]]:
    """Examples of each new type, one a formula, and how many answers had each fate."""
    fates: Counter[str] = Counter()
    groups: dict[str, list[TypeAnswer]] = {}
    seen = TypeLibrary()
    known_or_new: dict[str, str] = {}  # by text: nano repeats itself
    for row in stored_answers(folder):
        fates[row["fate"]] += 1
        if row["fate"] != "typed":
            continue
        text = row["typed"]
        if text not in known_or_new:
            example = TypeAnswer(read_typed(text), row)
            crystal, of_class = example.typed.crystal, example.typed.of_class
            if known.find(crystal, of_class) is not None:
                known_or_new[text] = "known"
            else:
                name = seen.find(crystal, of_class)
                if name is None:
                    name = f"t{len(groups)}"
                    seen.add(name, crystal, of_class)
                    groups[name] = []
                if all(e.typed.crystal.formula != crystal.formula for e in groups[name]):
                    groups[name].append(example)
                known_or_new[text] = "new"
        fates[f"typed, {known_or_new[text]}"] += 1
    return list(groups.values()), fates


def relaxation_order(
    groups: Sequence[Sequence[TypeAnswer]], served: Mapping[AnonymousFormula, int], per_type: int
) -> list[TypeAnswer]:
    """The examples to relax, in order: the first of each type, then the second, …

    Types with most formulas come first, then those sampled at the lowest temperature, then those
    whose anonymous formula has fewest known types, then small ones.
    """

    def rank(group: Sequence[TypeAnswer]) -> tuple[float, ...]:
        crystal, coolest = group[0].typed.crystal, min(e.row["temperature"] for e in group)
        return (-len(group), coolest, served.get(anonymous_amounts(crystal), 0), crystal.n_atoms)

    ranked = sorted(groups, key=rank)
    return [group[turn] for turn in range(per_type) for group in ranked if len(group) > turn]


def relax_answers(
    examples: Sequence[TypeAnswer],
    folder: Path,
    potential: str,
    protocol: Protocol,
    most: int | None,
    workers: int | None,
    progress: Progress,
) -> dict[str, Relaxation]:
    """Relaxations by content id, those that the folder holds included; at most `most` in all.

    None is stopped early: the first steps do not show which will end low.
    """
    path = folder / RELAXED
    done: dict[str, Relaxation] = {}
    for row in json_lines(path):
        known = Relaxation.model_validate(row)
        if known.protocol == protocol and known.potential == potential:
            done[known.candidate_id] = known
    wanted = {e.typed.crystal.content_id: e.typed.crystal for e in examples}
    todo = [(name, crystal) for name, crystal in wanted.items() if name not in done]
    if most is not None:
        todo = todo[: max(0, most - len(done))]
    if todo:
        total = len(done) + len(todo)
        with _appending(path) as file:
            for found in relax_many(todo, potential, protocol, workers):
                file.write(found.model_dump_json() + "\n")
                file.flush()
                done[found.candidate_id] = found
                progress("relax", len(done), total)
    return done
