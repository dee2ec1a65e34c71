"""Run by test_real_loaders.py in a process of its own: what ComfyUI makes of files without weights.

python comfyui.py COMFYUI_FOLDER FILE..; prints a JSON object, file -> what was found. Modules that
detection does not need (torchvision and the like) may be missing: they are replaced by empty ones.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

REPLACED = (
    "torchvision",
    "torchaudio",
    "torchsde",
    "av",
    "kornia",
    "spandrel",
    "soundfile",
    "comfy.zluda",
)


def replace_missing() -> None:
    for name in REPLACED:
        if name.startswith("comfy.") or importlib.util.find_spec(name) is None:
            module = MagicMock(spec=ModuleType(name))
            module.__path__ = []
            module.__spec__ = importlib.util.spec_from_loader(name, None)
            module.__version__ = "0"
            sys.modules[name] = module


def found(path: Path) -> dict[str, Any]:
    """ComfyUI's class for the file, and the tensors that its model misses, does not know or wants
    in another shape; as `comfy.sd.load_diffusion_model_state_dict` goes about it.
    """
    import comfy.model_detection as detection
    import torch
    from safetensors import safe_open

    state = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            piece = file.get_slice(name)
            state[name] = torch.empty(piece.get_shape(), dtype=torch.bfloat16, device="meta")
    config = detection.model_config_from_unet(state, "")
    if config is None:
        converted = detection.convert_diffusers_mmdit(state, "")
        if converted is None:
            return {"model": None}
        state = converted
        config = detection.model_config_from_unet(state, "")
        if config is None:
            return {"model": None}
    config.set_inference_dtype(torch.bfloat16, None)
    model = config.get_model(state, "", device="meta").diffusion_model
    expected = model.state_dict()
    state = config.process_unet_state_dict(state)
    wrong = [
        name
        for name, tensor in state.items()
        if name in expected and expected[name].shape != tensor.shape
    ]
    return {
        "model": type(config).__name__,
        "missing": sorted(expected.keys() - state.keys()),
        "unexpected": sorted(state.keys() - expected.keys()),
        "wrong": wrong,
    }


def main(comfyui: str, *files: str) -> None:
    replace_missing()
    sys.path.insert(0, comfyui)
    sys.argv = [*sys.argv[:1], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    results = {}
    for file in files:
        try:
            results[file] = found(Path(file))
        except Exception as error:
            results[file] = {"model": None, "error": f"{type(error).__name__}: {error}"[:300]}
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
