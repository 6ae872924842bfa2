"""`hullward-nano-cif`, the crystal model that comes with Hullward: its folder and sampling."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from hullward.models.errors import PreflightError
from hullward.models.language.protocol import Sampling

NANO = "hullward-nano-cif"

# Chosen on validation formulas; all measurements use it, in both text forms.
NANO_SAMPLING = Sampling(temperature=0.65, top_p=0.95, max_tokens=400)


def nano_folder() -> Path:
    """The folder of its weights, tokenizer and model card, in the layout of transformers and vLLM.

    Raises PreflightError where the installation lacks them.
    """
    folder = Path(str(files("hullward.data") / "nano_cif"))
    if not (folder / "model.safetensors").is_file():
        raise PreflightError(
            f"the weights of {NANO} are missing at {folder}; install Hullward again, or make them: "
            "see data/nano_cif/README.md"
        )
    return folder
