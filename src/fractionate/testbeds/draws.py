"""Random draws that are a pure function of (seed, split, sample, what is drawn): no state, no order.

A sample is therefore the same in whatever batch, worker, process or device it is made. The function is the output mix
of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, doi 10.1145/2660193.2660195) over keys that are split as that paper
splits its generators. All of it is 64-bit integer arithmetic that wraps, which NumPy and torch define alike, so every
function here takes arrays of either.
"""

from __future__ import annotations

import hashlib
from typing import Any

Array = Any
"""A NumPy array or a torch tensor of 64-bit integers."""

_WORD = 1 << 64


def _signed(value: int) -> int:
    """Return the 64 low bits of `value` as a signed integer, which is what int64 arrays hold."""
    value %= _WORD
    return value - _WORD if value >= _WORD // 2 else value


_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)
_LOW_32 = (1 << 32) - 1


def root(seed: int, *names: str) -> int:
    """Return the key of a stream: of a seed, and of names such as the task and the split, which keep streams apart."""
    text = "\n".join([str(seed), *names]).encode()
    return _signed(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))


def child(key: Array, which: Array | int) -> Array:
    """Return 64 random bits for each key and number, which are also the key of draws further down.

    `key` is an array; `which` is an array that broadcasts with it, or a number.
    """
    step = _signed((which + 1) * _GOLDEN) if isinstance(which, int) else (which + 1) * _signed(_GOLDEN)
    return _mixed(key + step)


def below(bits: Array, limit: Array | int) -> Array:
    """Return integers in [0, limit) from the high half of random bits; the bias is under limit / 2³²."""
    return (((bits >> 32) & _LOW_32) * limit) >> 32


def below_too(bits: Array, limit: Array | int) -> Array:
    """Return integers in [0, limit) from the low half of the same bits."""
    return ((bits & _LOW_32) * limit) >> 32


def _mixed(bits: Array) -> Array:
    # int64 shifts copy the sign, so what they bring in is masked away.
    bits = (bits ^ ((bits >> 30) & ((1 << 34) - 1))) * _FIRST
    bits = (bits ^ ((bits >> 27) & ((1 << 37) - 1))) * _SECOND
    return bits ^ ((bits >> 31) & ((1 << 33) - 1))
