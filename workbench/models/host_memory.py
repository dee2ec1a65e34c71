"""The host's memory as the place of tensors that a device has no room for at the moment."""

from __future__ import annotations

import torch


class Host:
    """Takes tensors off a device and gives them back.

    apart: whether the host's memory is another than the device's. It is the same for a CPU, where
    a tensor stays where it is. The memory is pageable: so much pinned memory may not be to be had.
    """

    def __init__(self, device: torch.device, apart: bool | None = None) -> None:
        self.device = device
        self.apart = device.type != "cpu" if apart is None else apart

    def keep(self, tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The tensor on the host; where that is the device, the same tensor or its cast."""
        return tensor.detach().to("cpu" if self.apart else tensor.device, dtype or tensor.dtype)

    def back(self, tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The tensor on the device, a copy where the host is another place."""
        return tensor.detach().to(self.device, dtype or tensor.dtype)
