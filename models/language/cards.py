"""The language models a user can name: their weights, licences and prompt forms.

A name is one of the six LLaMat models, `nano`, a folder in Hugging Face's layout, or `owner/name`
on the Hugging Face hub. Facts on LLaMat: doi:10.1038/s42256-026-01199-8, its public code and its
model cards. No commit of the six is known for certain, so none is pinned here: a download needs
`--revision`.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hullward.models.errors import InputError, PreflightError
from hullward.models.language.answer_text import parse_json
from hullward.models.language.nano import NANO, NANO_SAMPLING, nano_folder
from hullward.models.language.prompt_forms import CHATML_STOP, PromptForm
from hullward.models.language.protocol import Sampling

Task = Literal["text", "chat", "crystal"]

COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LLAMA_2 = "Llama 2 Community License"
_LLAMA_3 = "Meta Llama 3 Community License"
_DEFAULT_CONTEXT = 2048
_PLAIN = Sampling()


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The facts about one language model that are known before it is loaded."""

    name: str  # in campaign files and on servers
    source: str  # owner/name on the hub, or a folder
    revision: str | None = None  # commit; None: not pinned
    task: Task = "text"
    licence: str = "unknown: see its model card"
    prompt_forms: tuple[PromptForm, ...] = ("plain",)  # the first is the default
    stop: tuple[str, ...] = ()
    context_tokens: int = _DEFAULT_CONTEXT  # prompt and completion together
    trained_tokens: int | None = None  # length of its training sequences, where known
    sampling: Sampling = _PLAIN  # as its authors ran it, else plain sampling
    dtype: str = "auto"  # of the weights when served
    download_gb: float | None = None
    note: str = ""

    @property
    def prompt_form(self) -> PromptForm:
        return self.prompt_forms[0]

    @property
    def is_local(self) -> bool:
        return Path(self.source).is_dir()


def _llamat(generation: int, kind: str, **facts: Any) -> ModelCard:
    name = f"llamat-{generation}{kind}"
    second = generation == 2
    return ModelCard(
        name=name,
        source=f"m3rg-iitd/{name}",
        licence=_LLAMA_2 if second else _LLAMA_3,
        context_tokens=4096 if second else 8192,
        trained_tokens=2048,
        dtype="bfloat16",  # LLaMat-3 is stored in 32 bits, which doubles the memory
        download_gb=13.5 if second else 32.1,
        **facts,
    )


_TEXT: dict[str, Any] = {
    "task": "text",
    "note": "continued pretraining only: it continues text, it does not answer",
}
_CHAT: dict[str, Any] = {
    "task": "chat",
    "prompt_forms": ("chatml",),
    "stop": CHATML_STOP,  # they never end by themselves
    "sampling": Sampling(
        temperature=0, top_p=0.8, top_k=50, frequency_penalty=1.0, max_tokens=800, stop=CHATML_STOP
    ),
}
# LLaMat does not end after a crystal: it goes on with the title of the next document.
_CIF_STOP = ("Title", *CHATML_STOP)
_CIF: dict[str, Any] = {
    "task": "crystal",
    "prompt_forms": ("input-output", "chatml", "plain"),
    "stop": _CIF_STOP,
    "sampling": Sampling(temperature=0.01, top_p=0.95, max_tokens=1024, stop=_CIF_STOP),
    "note": (
        "the prompt form of its training is not certain: `hullward probe` compares "
        "them; the third is for LLaMat's crystal adapters"
    ),
}

_CATALOGUE = {
    card.name: card
    for generation in (2, 3)
    for kind, facts in (("", _TEXT), ("-chat", _CHAT), ("-cif", _CIF))
    for card in [_llamat(generation, kind, **facts)]
}


def model_names() -> tuple[str, ...]:
    """The names of the models that have a card here."""
    return tuple(_CATALOGUE)


def model_card(name: str) -> ModelCard:
    """The card of a known name, of a folder, or of any other model on the hub.

    Raises InputError for any other name, PreflightError for a folder that must not or cannot be
    served.
    """
    if name in _CATALOGUE:
        return _CATALOGUE[name]
    if name in ("nano", NANO):
        weights = read_folder(nano_folder())
        return replace(weights, name=NANO, task="crystal", licence="MIT", sampling=NANO_SAMPLING)
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return read_folder(folder)
    by_source = {card.source: card for card in _CATALOGUE.values()}
    if name in by_source:
        return by_source[name]
    if _HUB_NAME.fullmatch(name) and name.count("/") == 1 and not name.startswith("."):
        return ModelCard(name=name.split("/")[1].lower(), source=name, prompt_forms=("server",))
    near = difflib.get_close_matches(name, _CATALOGUE, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise InputError(
        f"no model '{name}': {hint}known: nano, {', '.join(_CATALOGUE)}; or a folder with "
        "config.json and safetensors, or owner/name on the Hugging Face hub"
    )


def read_folder(folder: Path) -> ModelCard:
    """The card of a folder in Hugging Face's layout.

    Raises PreflightError where it has no configuration, code of its own or no safetensors.
    """
    config = _json(folder / "config.json", f"{folder} holds no model")
    for path in sorted(folder.glob("*.json")):
        if "auto_map" in _json(path, "a configuration cannot be read", any_json=True):
            raise PreflightError(
                f"{path} asks for code of the model's own (auto_map), which is never run here: "
                "use a model of an architecture that transformers knows"
            )
    if not any(folder.glob("*.safetensors")):
        raise PreflightError(
            f"{folder} holds no *.safetensors; weights in other files can run code when opened: "
            "convert them with transformers' save_pretrained"
        )
    tokenizer = folder / "tokenizer_config.json"
    chats = (folder / "chat_template.jinja").is_file() or (
        tokenizer.is_file()
        and bool(_json(tokenizer, "a configuration cannot be read").get("chat_template"))
    )
    positions = config.get("max_position_embeddings")
    return ModelCard(
        name=folder.resolve().name.lower(),
        source=str(folder.resolve()),
        task="chat" if chats else "text",
        licence="of this folder: see its README",
        prompt_forms=("server",) if chats else ("plain",),
        context_tokens=positions if isinstance(positions, int) else _DEFAULT_CONTEXT,
    )


def _json(path: Path, what: str, *, any_json: bool = False) -> dict[str, Any]:
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PreflightError(f"{what}: {path}: {error}") from error
    if not isinstance(found, dict):
        if any_json:  # a vocabulary may be a list
            return {}
        raise PreflightError(f"{what}: {path} is no JSON object")
    return found
