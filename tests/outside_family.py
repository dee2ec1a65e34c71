"""A transformer class of somebody else's package, as a plugin would bring it."""

from __future__ import annotations

from diffusers import QwenImageTransformer2DModel


class OutsideTransformer(QwenImageTransformer2DModel):
    """A class that the families table does not have."""
