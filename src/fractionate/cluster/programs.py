"""Programs on their way to another process: beginnings of programs as bytes, their models by name.

A model is no value that can be sent: it holds connections, weights, keys. What travels is its name and its options; the
other process opens the same model and checks by its identity that it is the same.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fractionate.calls.stages import TaskFactory
from fractionate.config import ModelOptions
from fractionate.errors import FractionateError
from fractionate.models.base import Model
from fractionate.types import Completion


class NamedModel(NamedTuple):
    """What another process opens a model by. `options` is their JSON."""

    name: str
    options: str
    identity: str


Known = Mapping[str, Completion]
"""Completions by store key that the run has already."""
OpenModel = Callable[[NamedModel], Model]


def pack(starts: Sequence[TaskFactory], known: Known) -> tuple[bytes, list[Model]]:
    """Return beginnings of programs, and the completions they have already, as bytes; and the models they ask."""
    from ray import cloudpickle

    models: dict[int, Model] = {}

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # Ray ships no types for it
        def persistent_id(self, value: Any) -> NamedModel | None:
            if not isinstance(value, Model):
                return None
            models[id(value)] = value
            return named(value)

    file = io.BytesIO()
    Pickler(file, protocol=5).dump((list(starts), dict(known)))
    return file.getvalue(), list(models.values())


def unpack(data: bytes, open_model: OpenModel) -> tuple[list[TaskFactory], dict[str, Completion]]:
    """Return what `pack` was given. `open_model` opens a model, or returns one that is open.

    Raises FractionateError where the code that it needs is not installed here.
    """

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, model: NamedModel) -> Model:
            return open_model(model)

    try:
        starts, known = Unpickler(io.BytesIO(data)).load()
    except (ImportError, AttributeError) as error:
        raise FractionateError(
            f"a worker lacks code that the run has ({error}): install the same packages on every machine"
        ) from None
    return starts, known


def named(model: Model) -> NamedModel:
    """Return what another process opens a model by."""
    options = model.made_with or ModelOptions()
    return NamedModel(model.name, options.model_dump_json(), model.identity)
