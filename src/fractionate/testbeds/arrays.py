"""The few operations that NumPy and torch spell differently, so that a generator is written once for both."""

from __future__ import annotations

from typing import Any

Array = Any


class NumPyArrays:
    """NumPy on the CPU."""

    def __init__(self) -> None:
        import numpy

        self.np = numpy
        self.int64, self.int16, self.uint8, self.bool = numpy.int64, numpy.int16, numpy.uint8, numpy.bool_

    def array(self, values: Any, dtype: Any = None) -> Array:
        """Return values as an array."""
        return self.np.asarray(values, dtype=dtype)

    def arange(self, stop: int) -> Array:
        """Return 0 … stop − 1."""
        return self.np.arange(stop, dtype=self.np.int64)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return zeros."""
        return self.np.zeros(shape, dtype=dtype)

    def cast(self, array: Array, dtype: Any) -> Array:
        """Return the array in another type."""
        return array.astype(dtype)

    def where_true(self, mask: Array) -> Array:
        """Return the places, along the one axis, where the mask is true."""
        return self.np.flatnonzero(mask)

    def choose(self, mask: Array, yes: Array, no: Array) -> Array:
        """Return `yes` where the mask is true, else `no`."""
        return self.np.where(mask, yes, no)

    def smaller(self, left: Array, right: Array) -> Array:
        """Return the smaller of each pair."""
        return self.np.minimum(left, right)

    def clip(self, array: Array, low: int | None, high: int | None) -> Array:
        """Return the array held between two numbers."""
        return self.np.clip(array, low, high)

    def stack(self, parts: list[Array]) -> Array:
        """Return arrays side by side, along a new last axis."""
        return self.np.stack(parts, axis=-1)

    def sort_order(self, array: Array) -> Array:
        """Return, for each row, the order that sorts it."""
        return self.np.argsort(array, axis=1, kind="stable")

    def along(self, array: Array, order: Array) -> Array:
        """Return each row in the given order."""
        return self.np.take_along_axis(array, order, axis=1)

    def windows(self, table: Array, size: int) -> Array:
        """Return the view whose [k, y, x] is the size × size window of table[k] that starts at (y, x)."""
        return self.np.lib.stride_tricks.sliding_window_view(table, (size, size), axis=(1, 2))


class TorchArrays:
    """torch on any device."""

    def __init__(self, device: str) -> None:
        import torch

        self.torch, self.device = torch, torch.device(device)
        self.int64, self.int16, self.uint8, self.bool = torch.int64, torch.int16, torch.uint8, torch.bool

    def array(self, values: Any, dtype: Any = None) -> Array:
        """Return values as a tensor on the device."""
        return self.torch.as_tensor(values, dtype=dtype, device=self.device)

    def arange(self, stop: int) -> Array:
        """Return 0 … stop − 1."""
        return self.torch.arange(stop, dtype=self.torch.int64, device=self.device)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return zeros."""
        return self.torch.zeros(shape, dtype=dtype, device=self.device)

    def cast(self, array: Array, dtype: Any) -> Array:
        """Return the tensor in another type."""
        return array.to(dtype)

    def where_true(self, mask: Array) -> Array:
        """Return the places, along the one axis, where the mask is true."""
        return self.torch.nonzero(mask).flatten()

    def choose(self, mask: Array, yes: Array, no: Array) -> Array:
        """Return `yes` where the mask is true, else `no`."""
        return self.torch.where(mask, yes, no)

    def smaller(self, left: Array, right: Array) -> Array:
        """Return the smaller of each pair."""
        return self.torch.minimum(left, right)

    def clip(self, array: Array, low: int | None, high: int | None) -> Array:
        """Return the tensor held between two numbers."""
        return self.torch.clip(array, low, high)

    def stack(self, parts: list[Array]) -> Array:
        """Return tensors side by side, along a new last axis."""
        return self.torch.stack(parts, dim=-1)

    def sort_order(self, array: Array) -> Array:
        """Return, for each row, the order that sorts it."""
        return self.torch.argsort(array, dim=1, stable=True)

    def along(self, array: Array, order: Array) -> Array:
        """Return each row in the given order."""
        return self.torch.take_along_dim(array, order, dim=1)

    def windows(self, table: Array, size: int) -> Array:
        """Return the view whose [k, y, x] is the size × size window of table[k] that starts at (y, x)."""
        return table.unfold(1, size, 1).unfold(2, size, 1)


def arrays_for(device: str | None) -> Any:
    """Return NumPy for no device, torch for a device such as "cpu", "cuda" or "cuda:1"."""
    return NumPyArrays() if device is None else TorchArrays(device)
