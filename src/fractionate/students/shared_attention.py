"""Reading packed rows: an attention that keeps stretches apart, the loss on them, and whether a model reads them alike.

Every stretch is attended to on its own, with the beginning that it continues before it. One dense mask over the row
would give the same sums and compute mostly what it masks: of four questions on a passage about half of all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fractionate.students.packing import Pack, Stretch
from fractionate.students.training_data import IGNORED

NAME = "fractionate_shared"
"""The attention's name in transformers' table of them."""
_NOT_MADE = ("softcap", "s_aux", "position_bias")
"""What some models add: it may hardly show in a try and matter later, so such models read every example alone."""
TOLERANCE = 1e-4
"""The most that a token's log-probability may differ between packed and single reading: rounding makes about 1e-5."""


def _sees(own: int, before: int, device: Any) -> Any:
    """Return what each token of a stretch sees: all of the beginning, and of the stretch what is up to itself."""
    import torch

    return torch.ones(own, before + own, dtype=torch.bool, device=device).tril(before)


def _attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, dropout: float = 0.0, **options: Any
) -> tuple[Any, None]:
    """Attend within the stretches of the row's layout. Tensors are (1, heads, tokens, width)."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    if unknown := [name for name in _NOT_MADE if options.get(name) is not None]:
        raise NotImplementedError(f"attention with {', '.join(unknown)}")
    layout: Layout = options["layout"]
    layout.attended += 1
    times = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(times, dim=1) if times > 1 else each for each in (key, value))
    read = []
    for start, end, seen_from, seen_to in layout.stretches:
        alone = seen_from == seen_to
        before, own = slice(seen_from, seen_to), slice(start, end)
        read.append(
            scaled_dot_product_attention(
                query[:, :, own],
                key[:, :, own] if alone else torch.cat([key[:, :, before], key[:, :, own]], dim=2),
                value[:, :, own] if alone else torch.cat([value[:, :, before], value[:, :, own]], dim=2),
                attn_mask=None if alone else _sees(end - start, seen_to - seen_from, query.device),
                dropout_p=dropout,
                scale=options.get("scaling"),
                is_causal=alone,
            )
        )
    return torch.cat(read, dim=2).transpose(1, 2).contiguous(), None


@contextmanager
def shared_attention(model: Any) -> Iterator[None]:
    """Let a model attend in this way, to packed rows alone; it attends as before afterwards."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attend)
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@dataclass(eq=False)
class Layout:
    """A row's stretches: one thing, so that no library takes them for tensors to move; and how often it was used."""

    stretches: Sequence[Stretch]
    attended: int = 0


def inputs_of(one: Pack) -> dict[str, Any]:
    """Return a row as tensors: `input_ids`, `position_ids` of (1, tokens), `sources` and `targets`; and its layout."""
    import torch

    return {
        "input_ids": torch.tensor([one.tokens]),
        "position_ids": torch.tensor([one.positions]),
        "sources": torch.tensor(one.sources),
        "targets": torch.tensor(one.targets),
        "layout": Layout(tuple(one.stretches)),
    }


def packed_losses(model: Any, inputs: dict[str, Any]) -> Any:
    """Return the cross-entropy of every target of a row, in the order of the row: (targets,), with its graph."""
    from torch.nn.functional import cross_entropy

    logits = model(
        input_ids=inputs["input_ids"],
        position_ids=inputs["position_ids"],
        use_cache=False,
        logits_to_keep=inputs["sources"],
        layout=inputs["layout"],
    ).logits
    return cross_entropy(logits[0].float(), inputs["targets"], reduction="none")


def reads_alike(model: Any, rows: Sequence[dict[str, Any]]) -> bool:
    """Return whether a model reads packed rows just as it reads examples alone: whether sharing changes nothing.

    It is tried on the longest example and another that goes on differently after its first half, in training mode. A
    sliding window shorter than the example, layers that carry a state along, an attention of the model's own and
    dropout all show in the losses; so does a model that refuses what it is given.
    """
    import torch

    ids = max((list(row["input_ids"]) for row in rows), key=len)
    half = len(ids) // 2
    turned = ids[:half] + ids[half:][::-1]
    tried = [{"input_ids": one, "labels": [IGNORED, *one[1:]]} for one in (ids, turned)]
    both = Pack()
    both.add(tried, half)
    devices = [model.device] if model.device.type == "cuda" else []
    was_training = model.training
    model.train()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            alone = torch.cat([_losses_alone(model, one["input_ids"]) for one in tried])
            with shared_attention(model):
                inputs = {key: _to(value, model.device) for key, value in inputs_of(both).items()}
                packed = packed_losses(model, inputs)
    except Exception:  # whatever a model that cannot be read so does: it is then read as it always was
        return False
    finally:
        model.train(was_training)
    every_layer = inputs["layout"].attended == model.config.get_text_config(decoder=True).num_hidden_layers
    return every_layer and bool((alone - packed).abs().max() <= TOLERANCE)


def _losses_alone(model: Any, ids: list[int]) -> Any:
    import torch
    from torch.nn.functional import cross_entropy

    tokens = torch.tensor([ids], device=model.device)
    logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
    return cross_entropy(logits[0, :-1].float(), tokens[0, 1:], reduction="none")


def _to(value: Any, device: Any) -> Any:
    return value.to(device) if hasattr(value, "to") else value
