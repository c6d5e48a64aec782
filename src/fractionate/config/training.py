"""`[train]`: how a student is trained, by one process or several, and what is tried on the dev split."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from fractionate.config.values import Count, Rate, Section, auto_as_none


class SearchConfig(Section):
    """Candidates for the dev split: every combination is tried. A setting without candidates is as in [train]."""

    learning_rate: list[Rate] = Field(default=[], max_length=100, description="learning rates")
    lora_rank: list[Annotated[int, Field(ge=1, le=2**13)]] = Field(
        default=[], max_length=100, description="ranks of the LoRA matrices"
    )
    epochs: list[Annotated[float, Field(gt=0, le=10_000)]] = Field(
        default=[], max_length=100, description="passes over the examples"
    )


class TrainConfig(Section):
    """How a student is trained."""

    method: Literal["lora", "full"] = Field(default="lora", description="LoRA adapters, or every weight")
    epochs: float = Field(default=1.0, gt=0, le=10_000, description="passes over the examples")
    learning_rate: Annotated[Rate | None, BeforeValidator(auto_as_none)] = Field(
        default=None,
        description='peak learning rate; "auto", or none given: by the width of the student',
    )
    batch_size: int = Field(default=8, ge=1, le=2**16, description="examples per step")
    lora_rank: int = Field(default=16, ge=1, le=2**13, description="rank of the LoRA matrices")
    share_passages: bool = Field(
        default=False,
        description="put examples on one passage into one step (half a step's) and compute their common prefix once",
    )
    max_length: int = Field(
        default=1024,
        ge=16,
        le=10**7,
        description="tokens per example at most; longer examples are left out and counted",
    )
    max_examples: Count = Field(default=0, description="examples per student at most, the first ones; 0 takes all")
    min_examples: int = Field(
        default=4,
        ge=1,
        le=10**6,
        description="a student with fewer examples is not trained; the run says why demonstrations could not be used",
    )
    dev_checks: int = Field(default=1, ge=1, le=10_000, description="measurements of the loss on dev per epoch")
    patience: Count = Field(
        default=2,
        description="consecutive dev measurements without a lower loss that end a training; 0: never",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description='arithmetic: "auto" multiplies in bf16 on a GPU and in fp32 on a CPU; '
        '"bf16" does so on both, and holds the base of a LoRA in bf16 too (a CPU without bf16 instructions takes up to '
        "45 times as long)",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="recompute activations in the backward pass instead of keeping them: less memory"
    )
    base_bits: Literal[16, 4] = Field(
        default=16, description="4 holds the base of a LoRA in 4 bits a weight (NF4, extra quantised); 16 leaves it"
    )
    workers: int = Field(
        default=1, ge=1, le=4096, description="processes that train one student together, through Ray; a GPU each"
    )
    search: SearchConfig = SearchConfig()

    @field_validator("base_bits")
    @classmethod
    def _of_an_adapter_s_base(cls, bits: int, info: ValidationInfo) -> int:
        if bits == 4 and info.data.get("method") == "full":
            raise ValueError('weights of 4 bits cannot be trained: take train.method = "lora"')
        if bits == 4 and info.data.get("share_passages"):
            raise ValueError("share_passages cannot be verified on a base of 4 bits: set one of the two")
        return bits

    @field_validator("workers")
    @classmethod
    def _of_equal_shares(cls, workers: int, info: ValidationInfo) -> int:
        batch = info.data.get("batch_size", 0)
        if batch % workers:
            fix = f"take train.batch_size = {workers * max(1, round(batch / workers))}"
            raise ValueError(f"{workers} workers cannot share out a batch of {batch} evenly: {fix}")
        return workers

    @property
    def share(self) -> int:
        """The examples of a step that one worker reads."""
        return self.batch_size // self.workers

    def candidates(self) -> list[TrainConfig]:
        """Return every combination of what is to be tried, each a config of one training, in the order of the lists."""
        tried = {name: list(dict.fromkeys(values)) for name, values in self.search if values}
        return [
            self.model_copy(update={**dict(zip(tried, values, strict=True)), "search": SearchConfig()})
            for values in product(*tried.values())
        ]

    def decisive(self, *, with_dev: bool) -> dict[str, Any]:
        """Return the settings that decide a training's result; those about dev only of one that has a dev split."""
        left_out = {"search", "min_examples", "gradient_checkpointing"}  # what is computed anew is computed alike
        if not with_dev:
            left_out |= {"dev_checks", "patience"}
        # A student trained before there was a choice stays what it is.
        later = ("share_passages", "precision", "base_bits", "workers")
        left_out |= {name for name in later if getattr(self, name) == type(self).model_fields[name].default}
        return self.model_dump(mode="json", exclude=left_out)
