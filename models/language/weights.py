"""Find the weights of a language model: in a folder, or in the Hugging Face cache.

Nothing is downloaded without `fetch`, and then by commit: safetensors and plain text files only.
"""

from __future__ import annotations

from pathlib import Path

from hullward.models.errors import FetchError, InputError, PreflightError
from hullward.models.language.answer_text import parse_json
from hullward.models.language.cards import COMMIT, ModelCard, read_folder

WANTED = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt", "LICENSE*", "README.md")


def find_weights(card: ModelCard, revision: str | None = None, *, fetch: bool = False) -> Path:
    """The folder of a model's weights, checked: no code of its own, safetensors only.

    revision: a commit; default the card's.  fetch: download what is missing.

    Raises PreflightError where they are not on this machine or must not be used, InputError for a
    download without a commit, FetchError where the download fails.
    """
    if card.is_local:
        if revision is not None:
            raise InputError(f"{card.source} is a folder, without revisions: omit --revision")
        read_folder(Path(card.source))
        return Path(card.source)
    revision = revision or card.revision
    if fetch and not (revision and COMMIT.fullmatch(revision)):
        raise InputError(
            f"{card.name} is unpinned: name a revision, the 40 digits of a commit, with "
            f"--revision; they are listed at https://huggingface.co/{card.source}/commits/main"
        )
    folder = _fetched(card, revision) if fetch else _cached(card, revision)
    read_folder(folder)
    return folder


def _cached(card: ModelCard, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(card.source, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        size = f" ({card.download_gb:g} GB)" if card.download_gb else ""
        at = f" at {revision}" if revision else ""
        raise PreflightError(
            f"the weights of {card.source}{at} are not on this machine; download them{size} with "
            f"`hullward serve {card.name} --fetch --revision COMMIT`; terms: {card.licence}"
        ) from None


def _fetched(card: ModelCard, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(card.source, revision=revision, allow_patterns=list(WANTED)))
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FetchError(
            f"{card.source} at {revision} cannot be downloaded: {reason}; check name, commit and "
            "network, and accept its terms on the hub if it asks for that"
        ) from error


def adapter_rank(folder: Path) -> int:
    """The rank of a LoRA adapter in PEFT's layout. Raises PreflightError for any other folder."""
    config = folder / "adapter_config.json"
    if not config.is_file():
        raise PreflightError(f"{folder} holds no adapter: it has no adapter_config.json")
    if not (folder / "adapter_model.safetensors").is_file():
        raise PreflightError(f"{folder} holds no adapter_model.safetensors; no other file is read")
    try:
        rank = parse_json(config.read_text(encoding="utf-8"))["r"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PreflightError(f"{config} cannot be read: no rank `r` in it ({error})") from error
    if not isinstance(rank, int) or rank < 1:
        raise PreflightError(f"{config}: the rank `r` is {rank!r}, expected a whole number")
    return rank
