"""The language models of a campaign: `crystal:` writes structures, `chat:` briefs and plans.

    crystal: nano                                  the model that comes with Hullward
    crystal: {url: http://127.0.0.1:8000/v1, model: llamat-2-cif}
    crystal: ../checkpoints/mine                   a local checkpoint, loaded in this process
    crystal: {recorded: outputs.jsonl}             completions recorded earlier
    crystal: none

    chat: {url: http://127.0.0.1:8001/v1, model: llamat-2-chat}
    chat: rules                                    no model: a policy that reads the outcomes;
                                                   `none` says the same

Keys of servers come from the environment only: HULLWARD_CHAT_API_KEY, HULLWARD_CRYSTAL_API_KEY.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hullward.models.language import PromptForm, TextForm

LARGEST_INTEGER = 2**63 - 1  # that the store holds


class Strict(BaseModel):
    """Frozen settings that refuse unknown keys, NaN, infinity and what the store cannot hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _fits_the_store(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise ValueError(f"at most {LARGEST_INTEGER}")
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str | Path):
                _require_utf8(str(one))
        return value


Kind = Literal["rules", "none", "nano", "local", "server", "recorded"]
SECRET_WORDS = ("key", "token", "secret", "password")


class Backend(Strict):
    """Where a language model is, and how to ask it."""

    name_of_role: ClassVar[str] = ""
    words: ClassVar[tuple[str, ...]] = ()  # words that are a whole backend

    word: str | None = Field(default=None, description="nano, none or rules; then nothing else")
    url: str | None = Field(default=None, description="an OpenAI-compatible server, …/v1")
    model: str | None = Field(default=None, description="its name on the server")
    path: Path | None = Field(default=None, description="a local checkpoint")
    recorded: Path | None = Field(default=None, description="completions, one JSON object a line")
    format: PromptForm | None = Field(default=None, description="default: the model's own")
    temperature: float | None = Field(default=None, ge=0, le=5)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, gt=0, le=32_768, description="of one answer")
    context_tokens: int | None = Field(default=None, gt=0, description="prompt and answer")
    at_once: int = Field(default=8, gt=0, le=256, description="requests under way together")

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, given: Any) -> Any:
        """Accept a word, a folder, or keys; errors never repeat the value, which may be a key."""
        role = cls.name_of_role
        if isinstance(given, str):
            return cls._of_text(given.strip())
        if not isinstance(given, dict):
            return given
        for key in given:
            if key not in cls.model_fields and any(w in str(key).lower() for w in SECRET_WORDS):
                raise ValueError(
                    f"a key does not belong in a file: set HULLWARD_{role.upper()}_API_KEY instead"
                )
        if (url := given.get("url")) is not None:
            check_url(url, role)
        return given

    @classmethod
    def _of_text(cls, text: str) -> dict[str, Any]:
        if text in cls.words:
            return {"word": text}
        if text.startswith(("http://", "https://")):
            raise ValueError(
                f"a server needs its model too: `{cls.name_of_role}: {{url: URL, model: NAME}}`"
            )
        if "/" in text or text.startswith(("~", ".")):
            return {"path": text}
        near = difflib.get_close_matches(text, cls.words, n=1, cutoff=0.4)
        hint = f"did you mean `{near[0]}`? " if near else ""
        raise ValueError(
            f"{text!r} is no backend; {hint}Give {', '.join(cls.words)}, a folder, or "
            "{url: URL, model: NAME}"
        )

    @model_validator(mode="after")
    def _one_place(self) -> Backend:
        places = {"url": self.url, "path": self.path, "recorded": self.recorded, "": self.word}
        given = [key for key, value in places.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"give the place of the model once: {', '.join(self.words)}, "
                "`url`, `path` or `recorded`"
            )
        if self.word is not None and self.word not in self.words:
            raise ValueError(f"{self.word!r} is none of {', '.join(self.words)}")
        if self.url is not None and not self.model:
            raise ValueError("a `url` needs the `model` to use there")
        if self.url is None and self.model is not None:
            raise ValueError("`model` names a model on a server: give its `url` too")
        return self

    @property
    def kind(self) -> Kind:
        if self.word is not None:
            return self.word  # type: ignore[return-value]  # one of `words`
        if self.url is not None:
            return "server"
        return "local" if self.path is not None else "recorded"

    @property
    def absent(self) -> bool:
        """Whether no model is asked at all."""
        return self.kind in ("rules", "none")

    @property
    def label(self) -> str:
        """The model's name in ids and tables: the same wherever it is served from."""
        if self.model is not None:
            return self.model
        where = self.path or self.recorded
        return f"{self.kind}:{where.name}" if where is not None else str(self.word)

    def identity(self) -> dict[str, Any]:
        """What changes results: not where the model is served, nor how many requests at once."""
        aside = {"url", "path", "recorded", "at_once", "word", "model"}
        kept = self.model_dump(mode="json", exclude=aside, exclude_none=True)
        return {"label": self.label, **kept}

    def describe(self) -> str:
        """The model in words, without secrets."""
        return {
            "server": f"{self.model} at {self.url}",
            "local": f"the checkpoint {self.path}",
            "recorded": f"the recording {self.recorded}",
        }.get(self.kind, str(self.word))


class CrystalBackend(Backend):
    """The model that writes structures."""

    name_of_role: ClassVar[str] = "crystal"
    words: ClassVar[tuple[str, ...]] = ("nano", "none")

    samples: int = Field(default=4, gt=0, le=64, description="structures for each prompt")
    text_form: TextForm | None = Field(
        default=None, description="every site, or one an orbit, which nano does best"
    )
    grammar: bool = Field(default=True, description="constrain text to the form and the wish")


class ChatBackend(Backend):
    """The model that writes briefs and plans, and varies structures."""

    name_of_role: ClassVar[str] = "chat"
    words: ClassVar[tuple[str, ...]] = ("rules",)

    @classmethod
    def _of_text(cls, text: str) -> dict[str, Any]:
        return super()._of_text("rules" if text == "none" else text)  # without a model, rules plan


def _require_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8: rename the file or folder") from None


def check_url(url: Any, role: str) -> None:
    """Raise ValueError unless a URL can be a server's, without a key in it."""
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise ValueError("`url` begins with http:// or https://")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("`url` has other characters than letters, digits and signs of ASCII")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises ValueError out of range
    except ValueError as error:
        raise ValueError(f"`url` is no address: {error}") from None
    if "@" in parts.netloc or parts.query:
        raise ValueError(
            "a key does not belong in a `url`: set "
            f"HULLWARD_{role.upper()}_API_KEY instead, and give http://HOST:PORT/v1"
        )
    if not parts.hostname:
        raise ValueError("`url` names no host; for example http://127.0.0.1:8000/v1")
