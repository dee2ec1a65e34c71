"""The tensor names of models as their authors published them, which ComfyUI and
stable-diffusion.cpp read, and the way from diffusers' names to them. No torch here.
"""

from .modules import Module, OriginalNames, OriginalTensor
from .table import AS_IN_DIFFUSERS, ORIGINAL_NAMES

__all__ = ["AS_IN_DIFFUSERS", "ORIGINAL_NAMES", "Module", "OriginalNames", "OriginalTensor"]
