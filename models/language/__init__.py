"""Language models: one protocol, model cards, prompts, a model in this process, stand-ins.

Text in, text out, many requests at once. It knows prompts and tokens, not campaigns; servers are in
`hullward.models.serving`.
"""

from hullward.models.language import crystal_prompts
from hullward.models.language.answer_text import (
    fenced,
    parse_json,
    read_json,
    without_thoughts,
)
from hullward.models.language.cards import ModelCard, model_card, model_names
from hullward.models.language.checkpoint import checkpoint_name, quiet_transformers
from hullward.models.language.crystal_prompts import (
    TextForm,
    crystal_prompt,
    flat_formula,
    infill_prompt,
)
from hullward.models.language.doubles import RecordedModel
from hullward.models.language.form_probe import ProbeCase, probe_forms
from hullward.models.language.local import LocalModel
from hullward.models.language.nano import NANO, NANO_SAMPLING, nano_folder
from hullward.models.language.prompt_forms import PromptForm, render
from hullward.models.language.protocol import (
    MOST_TOKENS,
    Answer,
    Completion,
    CompletionError,
    Constraint,
    Fault,
    FinishReason,
    LanguageModel,
    Message,
    Request,
    Sampling,
)
from hullward.models.language.weights import adapter_rank, find_weights

__all__ = [
    "MOST_TOKENS",
    "NANO",
    "NANO_SAMPLING",
    "Answer",
    "Completion",
    "CompletionError",
    "Constraint",
    "Fault",
    "FinishReason",
    "LanguageModel",
    "LocalModel",
    "Message",
    "ModelCard",
    "ProbeCase",
    "PromptForm",
    "RecordedModel",
    "Request",
    "Sampling",
    "TextForm",
    "adapter_rank",
    "checkpoint_name",
    "crystal_prompt",
    "crystal_prompts",
    "fenced",
    "find_weights",
    "flat_formula",
    "infill_prompt",
    "model_card",
    "model_names",
    "nano_folder",
    "parse_json",
    "probe_forms",
    "quiet_transformers",
    "read_json",
    "render",
    "without_thoughts",
]
