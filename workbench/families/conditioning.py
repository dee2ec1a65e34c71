"""What the vector depends on from which the blocks' modulation linears make shift, scale and gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ON_TIME: tuple[str, ...] = ("t",)


@dataclass(frozen=True)
class Conditioning:
    """The conditioning vector: one per sample, the same for all blocks.

    on: what it depends on: t (the timestep), guidance (the scale as a number), pooled (a vector of
    the prompt), size (of the picture). Where it is t alone, all vectors lie on one curve, which
    the weights outside the blocks give. optional: config key -> what it adds where it is true.

    arguments: "module:function" from a config and timesteps (T,) to the arguments of a
    transformer's call, as small as they can be; empty where it does not depend on t alone. scale:
    the timestep argument at pure noise.
    """

    on: tuple[str, ...] = ON_TIME
    optional: Mapping[str, str] = field(default_factory=dict)
    arguments: str = ""
    scale: float = 1.0

    def of(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """What the vector of a transformer of this config depends on."""
        added = [name for key, name in self.optional.items() if config.get(key)]
        return (*self.on, *added)

    def is_curve(self, config: Mapping[str, Any]) -> bool:
        """Whether it depends on the timestep alone."""
        return self.of(config) == ON_TIME
