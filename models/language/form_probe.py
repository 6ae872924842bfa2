"""Find the prompt form that a model was trained on, by asking the model itself.

Two measures: the likelihood of known answers after each form, and how often the model's own text
can be parsed. The parse rate decides where the difference is significant, else the likelihood.
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
    """Writes texts and computes the likelihood of a text."""


@dataclass(frozen=True, kw_only=True)
class ProbeCase:
    """A question with one right answer of perhaps several. plain: the question in that form."""

    question: str
    answer: str
    plain: str
    system: str = ""


@dataclass(frozen=True, kw_only=True)
class FormScore:
    """Result for one form. mean_logprob: natural, mean over the tokens of the known answers."""

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
    """The forms with their scores, the best first; `sampling.n` texts are written for each case.

    parses: whether a text holds an answer.

    Raises PreflightError where the server gives no log-probabilities or answers none of the
    requests of a form.
    """
    if not forms or not cases:
        raise ValueError("nothing to compare: give at least one form and one case")
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
        raise PreflightError(f"no request in the form {form} was answered: {errors[0]}")
    return FormScore(
        form=form,
        mean_logprob=sum(likely) / len(likely),
        parsed=sum(map(parses, texts)),
        written=len(requests) * sampling.n,  # failed requests count too
    )


def _clearly_better(one: FormScore, other: FormScore) -> bool:
    """Whether two rates differ by more than two standard errors of their difference."""
    n, m = one.written, other.written
    pooled = (one.parsed + other.parsed) / (n + m)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return one.rate - other.rate > 2 * error
