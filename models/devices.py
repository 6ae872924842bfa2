"""Where tensors live: the torch devices behind a setting."""

from __future__ import annotations

import re

from hullward.models.errors import InputError

DEVICE_PATTERN = r"^(auto|cpu|mps|cuda(:\d+)?)$"


def torch_devices(asked: str) -> tuple[str, ...]:
    """The devices that a setting means, never none: 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'.

    'auto' means every CUDA GPU that torch sees, or else the CPU; 'cuda' every one of them. Raises
    InputError for another text and for a device that this machine does not have.
    """
    if not re.fullmatch(DEVICE_PATTERN, asked):
        raise InputError(f"{asked!r} is no device: write auto, cpu, cuda, cuda:N or mps")
    if asked == "cpu":
        return ("cpu",)
    import torch

    if asked == "mps":
        if torch.backends.mps.is_available():
            return ("mps",)
        raise InputError("device 'mps': torch finds no Apple GPU here; use --device cpu or auto")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    every = tuple(f"cuda:{n}" for n in range(found))
    if asked == "auto":
        return every or ("cpu",)
    wanted = every if asked == "cuda" else tuple(one for one in every if one == asked)
    if not wanted:
        there = f"it finds {', '.join(every)}" if every else "it finds no CUDA GPU"
        raise InputError(
            f"device {asked!r} is not one that torch can use here ({there}); use --device auto, "
            "which takes a GPU where there is one, or --device cpu"
        )
    return wanted
