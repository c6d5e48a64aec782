"""Code and models on their way to another process: models are sent by name, and opened there."""

from __future__ import annotations

import io
import pickle
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fractionate.config import ModelOptions, ToolConfig
from fractionate.config.addresses import TOOL
from fractionate.errors import FractionateError, UsageError
from fractionate.models import open_model
from fractionate.models.base import CompositeModel, Model
from fractionate.tools import open_tool
from fractionate.tools.base import ToolModel


class NamedModel(NamedTuple):
    """How another process opens a model. `options` is their JSON."""

    name: str
    options: str
    identity: str


def pickled(value: Any) -> tuple[bytes, list[Model]]:
    """Return a value as bytes, and the models in it, which cannot be sent: they hold connections, weights, keys.

    The other process opens them by their names and options, and checks by their identities that they are the same.
    """
    from ray import cloudpickle

    models: dict[int, Model] = {}

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # Ray ships no types for it
        def persistent_id(self, value: Any) -> NamedModel | None:
            if not isinstance(value, Model) or isinstance(value, CompositeModel):
                return None  # a model with tools is sent as it is, and its parts by their names
            models[id(value)] = value
            return named(value)

    file = io.BytesIO()
    Pickler(file, protocol=5).dump(value)
    return file.getvalue(), list(models.values())


def unpickled(data: bytes, open_model: Callable[[NamedModel], Model]) -> Any:
    """Return what `pickled` was given. Raises FractionateError where the code that it needs is not installed here."""

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, model: NamedModel) -> Model:
            return open_model(model)

    try:
        return Unpickler(io.BytesIO(data)).load()
    except (ImportError, AttributeError) as error:
        raise FractionateError(
            f"a worker lacks code that the run has ({error}): install the same packages on every machine"
        ) from None


def named(model: Model) -> NamedModel:
    """Return how another process opens a model."""
    if isinstance(model, ToolModel):
        return NamedModel(model.name, model.config.model_dump_json(exclude_unset=True), model.identity)
    options = model.made_with or ModelOptions()
    return NamedModel(model.name, options.model_dump_json(), model.identity)


def open_named(wanted: NamedModel, base: Path, name: str = "") -> Model:
    """Open a model, under another `name` if one is given. Raises UsageError where it is another one on this machine."""
    if wanted.name.startswith(TOOL):
        tool = ToolConfig.model_validate_json(wanted.options)
        model: Model = open_tool(wanted.name.removeprefix(TOOL), tool, base)
    else:
        model = open_model(name or wanted.name, ModelOptions.model_validate_json(wanted.options), base)
    if model.identity != wanted.identity:
        raise UsageError(
            f"{wanted.name} is another model on {platform.node()}: copy the run's files there, at the same path"
        )
    return model
