"""The table of runtimes against the loaders themselves, at full size, without weights.

COMFYUI names a folder with ComfyUI's source, INFERNA_PYTHON a Python with the package inferna
(stable-diffusion.cpp): without them their tests are skipped. The gguf package always reads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.release.full_size import STUDENTS, layout, obstacles, write_gguf_hole, write_hole
from workbench.families.runtimes import RUNTIMES
from workbench.models.quantized import gguf_file

SCRIPTS = Path(__file__).with_name("real_loaders")
COMFYUI = os.environ.get("COMFYUI", "")
INFERNA = os.environ.get("INFERNA_PYTHON", "")
# As stable-diffusion.cpp calls them: by student, else by family.
VERSIONS = {
    "flux": "Flux",
    "flux2-dev": "Flux.2",
    "flux2-klein": "Flux.2 klein",
    "qwenimage": "Qwen Image",
    "qwenimage21": "Qwen Image 2.1",
    "zimage": "Z-Image",
    "wan": "Wan 2.x",
}
needs_comfyui = pytest.mark.skipif(not COMFYUI, reason="COMFYUI names no folder")
needs_inferna = pytest.mark.skipif(not INFERNA, reason="INFERNA_PYTHON names no Python")


def hole(student: str, runtime: str, folder: Path) -> Path:
    tensors, _ = layout(STUDENTS[student], RUNTIMES[runtime])
    path = folder / f"{student}.safetensors"
    write_hole(path, tensors)
    return path


@needs_comfyui
def test_comfyui_loads_what_the_table_says(tmp_path: Path) -> None:
    paths = {student: hole(student, "comfyui", tmp_path) for student in STUDENTS}
    command = [sys.executable, str(SCRIPTS / "comfyui.py"), COMFYUI, *map(str, paths.values())]
    answer = json.loads(subprocess.check_output(command, text=True))
    for student, path in paths.items():
        found = answer[str(path)]
        loads = bool(found["model"]) and not (
            found["missing"] or found["unexpected"] or found["wrong"]
        )
        assert loads == (not obstacles(STUDENTS[student], "comfyui")), (student, found)


def sd_cpp_loads(path: Path, version: str) -> bool:
    """Whether stable-diffusion.cpp took the file for this model and found all its tensors."""
    command = [INFERNA, str(SCRIPTS / "sdcpp.py"), str(path)]
    log = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    lines = log.splitlines()
    recognised = any(line.endswith(f"Version: {version}") for line in lines)
    return recognised and not any(is_fault(line) for line in lines)


def is_fault(line: str) -> bool:
    """Whether a line of the log says that the transformer is not what the file holds."""
    if "invalid num_layers" in line:
        return True
    return "diffusion_model" in line and ("not in model" in line or "wrong shape" in line)


@needs_inferna
@pytest.mark.parametrize("student", STUDENTS)
def test_stable_diffusion_cpp_loads_what_the_table_says(student: str, tmp_path: Path) -> None:
    path = hole(student, "sd.cpp", tmp_path)
    version = VERSIONS.get(student, VERSIONS.get(STUDENTS[student].family, "of its family"))
    assert sd_cpp_loads(path, version) == (not obstacles(STUDENTS[student], "sd.cpp"))


@pytest.mark.parametrize("student", ["qwen-image", "flux-mini", "z-image", "auraflow"])
def test_the_gguf_package_reads_every_tensor_of_a_full_size_file(
    student: str, tmp_path: Path
) -> None:
    full_size = STUDENTS[student]
    runtime = RUNTIMES["gguf"]
    assert not obstacles(full_size, "gguf")
    tensors, kinds = layout(full_size, runtime)
    path = tmp_path / "student.gguf"
    arch = runtime.families[full_size.family].arch
    write_gguf_hole(path, arch, tensors, kinds)
    reader = gguf_file.library().GGUFReader(path)
    shapes = {
        tensor.name: tuple(int(length) for length in reversed(tensor.shape))
        for tensor in reader.tensors
    }
    assert shapes == {name: shape for name, (_, shape) in tensors.items()}
    assert reader.fields["general.architecture"].contents() == arch
