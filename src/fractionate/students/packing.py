"""Several examples as one row without padding, each common prefix standing in it once, and the attention for such rows.

A row is a sequence of segments. A common prefix is one segment. The rest of each example is another: it attends to the
prefix and to itself, and its positions continue from the prefix's end. So every token gets the keys, values and
positions that it would get in its example alone, and its loss is the same.

Attention runs segment by segment. One dense mask over the row would give the same sums, but most of what it computes is
masked: of four questions on one passage, about half of all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from fractionate.students.training_data import IGNORED

SHARED_TOKENS = 32
"""The shortest common prefix, in tokens, that is worth a segment of its own."""
NAME = "fractionate_shared"
"""The attention's name in transformers' table of attention implementations."""
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")
"""Arguments that some models pass to their attention and that this one does not compute. Their effect may be too small
to show in the trial of `packs_exactly` and matter later, so such models are trained on padded examples."""
TOLERANCE = 1e-4
"""Largest difference, in nats, of a token's log-probability in a packed row and alone. Rounding makes about 1e-5."""


class Segment(NamedTuple):
    """Tokens start … end-1 of a row. They attend to tokens prefix_start … prefix_end-1, and causally to each other."""

    start: int
    end: int
    prefix_start: int = 0
    prefix_end: int = 0


@dataclass(slots=True)
class Pack:
    """One row: token ids and their positions, its segments, and for each target the token whose output predicts it."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)

    def add(self, rows: Sequence[dict[str, Any]], common: int) -> None:
        """Add examples whose first `common` tokens are the same; each has at least one more."""
        prefix = len(self.tokens)
        if common:
            self._append(rows[0]["input_ids"][:common], 0)
            self.segments.append(Segment(prefix, prefix + common))
        for row in rows:
            start = len(self.tokens)
            # Positions continue from the prefix's end, not from this segment's place in the row: rotary embeddings
            # would otherwise place every example but the first too far from its passage.
            self._append(row["input_ids"][common:], common)
            self.segments.append(Segment(start, len(self.tokens), prefix, prefix + common))
            for at, label in enumerate(row["labels"]):
                if label != IGNORED:
                    # The output at token t predicts token t+1. In a row the token before the first one of a segment
                    # is the end of another example, so the predecessor is looked up by its place in the example:
                    # within the prefix, or within the segment.
                    self.sources.append(prefix + at - 1 if at - 1 < common else start + at - 1 - common)
                    self.targets.append(label)

    def _append(self, tokens: Sequence[int], position: int) -> None:
        self.tokens += tokens
        self.positions += range(position, position + len(tokens))


def pack(rows: Sequence[dict[str, Any]], most: int) -> list[Pack]:
    """Pack examples (`input_ids`, `labels`) into rows of at most `most` tokens; a longer example has one to itself.

    Examples are grouped so that the fewest tokens pass through the model. A group too large for a row is cut, and its
    prefix repeated.
    """
    from fractionate.models.local.rows import share_groups

    tokens = [row["input_ids"] for row in rows]
    lots: list[tuple[int, int, list[int]]] = []  # (tokens, tokens of the prefix, positions of the examples)
    for common, members in share_groups(tokens, SHARED_TOKENS):
        is_first = True
        for at in members:
            rest = len(tokens[at]) - common
            if is_first or lots[-1][0] + rest > most:
                lots.append((common + rest, common, [at]))
                is_first = False
            else:
                lots[-1] = (lots[-1][0] + rest, common, [*lots[-1][2], at])
    packs: list[Pack] = []
    # First fit, largest first: within 11/9 of the fewest rows (Johnson, 1973), and each row costs a forward pass.
    for size, common, members in sorted(lots, key=lambda lot: -lot[0]):
        room = next((one for one in packs if len(one.tokens) + size <= most), None)
        if room is None:
            room = Pack()
            packs.append(room)
        # A lot of one shares with no example: as a prefix and a rest it would cost two attention calls for nothing.
        room.add([rows[at] for at in members], common if len(members) > 1 else 0)
    return packs


def passage_groups(tokens: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the positions of examples (token ids) in groups that share a passage; an example without one is alone.

    A passage is a common prefix of at least SHARED_TOKENS beyond the prefix of all examples (a template's opening).
    """
    # Sorted, examples with the longest common prefix are neighbours, and the first and last differ the most.
    order = sorted(range(len(tokens)), key=lambda at: list(tokens[at]))
    least = _common_prefix(tokens[order[0]], tokens[order[-1]]) + SHARED_TOKENS if len(order) > 1 else 0
    found = [[at] for at in order[:1]]
    for before, at in pairwise(order):
        if _common_prefix(tokens[before], tokens[at]) >= least:
            found[-1].append(at)
        else:
            found.append([at])
    return found


def _common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    differ = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))


# ---------------------------------------------------------------- attention


@dataclass(eq=False)
class Layout:
    """A row's segments, and how many attention layers used them.

    An object and not a tensor or tuple: libraries that move or copy a batch's tensors leave it as it is, so the count
    reaches the caller.
    """

    segments: Sequence[Segment]
    uses: int = 0


def inputs_of(one: Pack) -> dict[str, Any]:
    """Return a row's int64 tensors and its layout: `input_ids` and `position_ids` (1, tokens), `sources`, `targets`."""
    import torch

    return {
        "input_ids": torch.tensor([one.tokens]),
        "position_ids": torch.tensor([one.positions]),
        "sources": torch.tensor(one.sources),
        "targets": torch.tensor(one.targets),
        "layout": Layout(tuple(one.segments)),
    }


@contextmanager
def shared_attention(model: Any) -> Iterator[None]:
    """Give a model this attention for the length of the block; inside it takes packed rows only."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attend)
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, dropout: float = 0.0, **options: Any
) -> tuple[Any, None]:
    """Attend within the segments of a row's layout. `query`, `key`, `value`: (1, heads, tokens, width of a head)."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    if unknown := [name for name in _UNSUPPORTED if options.get(name) is not None]:
        raise NotImplementedError(f"attention with {', '.join(unknown)}")
    layout: Layout = options["layout"]
    layout.uses += 1
    # Grouped-query attention: each key/value head serves several query heads, and the kernel wants as many of each.
    times = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(times, dim=1) if times > 1 else each for each in (key, value))
    outputs = []
    for start, end, prefix_start, prefix_end in layout.segments:
        alone = prefix_start == prefix_end
        prefix, own = slice(prefix_start, prefix_end), slice(start, end)
        outputs.append(
            scaled_dot_product_attention(
                query[:, :, own],
                key[:, :, own] if alone else torch.cat([key[:, :, prefix], key[:, :, own]], dim=2),
                value[:, :, own] if alone else torch.cat([value[:, :, prefix], value[:, :, own]], dim=2),
                # `is_causal` aligns its triangle at the upper left where queries are fewer than keys, which would hide
                # most of the prefix: behind a prefix the mask is written out.
                attn_mask=None if alone else _mask(end - start, prefix_end - prefix_start, query.device),
                dropout_p=dropout,
                scale=options.get("scaling"),
                is_causal=alone,
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _mask(own: int, prefix: int, device: Any) -> Any:
    """Return which keys each token of a segment attends to, (own, prefix + own): the prefix, itself and before."""
    import torch

    return torch.ones(own, prefix + own, dtype=torch.bool, device=device).tril(prefix)


def packed_losses(model: Any, inputs: dict[str, Any]) -> Any:
    """Return the cross-entropy of every target of a row, in nats: (targets,) in fp32, with its graph."""
    from torch.nn.functional import cross_entropy

    logits = model(
        input_ids=inputs["input_ids"],
        position_ids=inputs["position_ids"],
        use_cache=False,
        # Logits are computed at the sources alone: over a vocabulary of 49,152, those of all tokens would take more
        # memory than the model.
        logits_to_keep=inputs["sources"],
        layout=inputs["layout"],
    ).logits
    return cross_entropy(logits[0].float(), inputs["targets"], reduction="none")


def packs_exactly(model: Any, rows: Sequence[dict[str, Any]]) -> bool:
    """Return whether a model gives the tokens of a packed row the same losses as in examples alone.

    Architectures are tried, not listed: a new one is packed as soon as it works, and none by mistake. The trial takes
    the longest example and one with the same first half and another second half, in training mode. A sliding window
    shorter than the example, recurrent layers, a model's own attention and dropout all change the losses. A model that
    refuses the inputs is not packed either.
    """
    import torch

    ids = max((list(row["input_ids"]) for row in rows), key=len)
    half = len(ids) // 2
    reversed_half = ids[:half] + ids[half:][::-1]
    tried = [{"input_ids": one, "labels": [IGNORED, *one[1:]]} for one in (ids, reversed_half)]
    both = Pack()
    both.add(tried, half)
    devices = [model.device] if model.device.type == "cuda" else []
    was_training = model.training
    model.train()
    try:
        # The generators are restored: the trial must not change what the training draws.
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            alone = torch.cat([_losses_alone(model, one["input_ids"]) for one in tried])
            with shared_attention(model):
                inputs = {key: _to(value, model.device) for key, value in inputs_of(both).items()}
                packed = packed_losses(model, inputs)
    except Exception:  # a model may refuse in any way; padded examples always work
        return False
    finally:
        model.train(was_training)
    # A layer that keeps an attention of its own lets segments see each other; on one trial that may hardly show.
    in_every_layer = inputs["layout"].uses == model.config.get_text_config(decoder=True).num_hidden_layers
    return in_every_layer and bool((alone - packed).abs().max() <= TOLERANCE)


def _losses_alone(model: Any, ids: list[int]) -> Any:
    import torch
    from torch.nn.functional import cross_entropy

    tokens = torch.tensor([ids], device=model.device)
    logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
    return cross_entropy(logits[0, :-1].float(), tokens[0, 1:], reduction="none")


def _to(value: Any, device: Any) -> Any:
    return value.to(device) if hasattr(value, "to") else value
