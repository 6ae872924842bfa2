"""Which prompt form a model was trained on, asked of the model itself.

Two signs: how likely it finds known answers after each form, and how often what it writes is an
answer at all. Writing decides where the difference is more than chance; else likelihood does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hullward.models.errors import PreflightError
from hullward.models.language.prompt_forms import PromptForm, conversation, render
from hullward.models.language.protocol import (
    CompletionError,
    LanguageModel,
    Request,
    Sampling,
    Scorer,
)


class _Model(LanguageModel, Scorer, Protocol):
    """Writes, and says how likely it finds a text."""


@dataclass(frozen=True, kw_only=True)
class ProbeCase:
    """A question with a right answer; there may be others. plain: the same for that form."""

    question: str
    answer: str
    plain: str
    system: str = ""


@dataclass(frozen=True, kw_only=True)
class FormScore:
    """How a model took to one form. mean_logprob: natural, a token of the known answers."""

    form: PromptForm
    mean_logprob: float
    parsed: int
    written: int

    @property
    def rate(self) -> float:
        return self.parsed / self.written if self.written else math.nan


def probe_forms(
    model: _Model,
    forms: Sequence[PromptForm],
    cases: Sequence[ProbeCase],
    parses: Callable[[str], bool],
    sampling: Sampling,
) -> list[FormScore]:
    """The forms, the better first; written n times for each case, so that rates mean something.

    parses: whether a text holds what was asked for.

    Raises PreflightError where the server tells no log-probabilities or answers none of the
    requests of a form.
    """
    if not forms or not cases:
        raise ValueError("nothing to compare: give forms and cases")
    scores = [_score(model, form, cases, parses, sampling) for form in forms]
    best = max(scores, key=lambda score: score.rate)
    rivals = [score for score in scores if not _clearly_better(best, score)]
    winner = max(rivals, key=lambda score: score.mean_logprob)
    rest = sorted((s for s in scores if s is not winner), key=lambda s: -s.mean_logprob)
    return [winner, *rest]


def _score(
    model: _Model,
    form: PromptForm,
    cases: Sequence[ProbeCase],
    parses: Callable[[str], bool],
    sampling: Sampling,
) -> FormScore:
    prompts = [
        case.plain if form == "plain" else render(form, conversation(case.question, case.system))
        for case in cases
    ]
    pairs = [(prompt, case.answer) for prompt, case in zip(prompts, cases, strict=True)]
    likely = model.score(pairs)
    requests = [
        Request(request_id=f"probe-{form}-{i}", prompt=prompt, sampling=sampling)
        for i, prompt in enumerate(prompts)
    ]
    answers = model.complete(requests)
    texts = [c.text for a in answers if not isinstance(a, CompletionError) for c in a]
    errors = [a for a in answers if isinstance(a, CompletionError)]
    if not texts:
        raise PreflightError(f"the form {form} got no answer at all: {errors[0]}")
    return FormScore(
        form=form,
        mean_logprob=sum(likely) / len(likely),
        parsed=sum(map(parses, texts)),
        written=len(requests) * sampling.n,  # what failed counts too
    )


def _clearly_better(one: FormScore, other: FormScore) -> bool:
    """Whether two rates differ by more than two standard errors of their difference."""
    n, m = one.written, other.written
    pooled = (one.parsed + other.parsed) / (n + m)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return one.rate - other.rate > 2 * error
