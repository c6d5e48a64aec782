"""The tables of a config, one class each: `[data]`, `[models]`, `[run]` and the rest. All values are checked here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from fractionate.config.addresses import find_for, split_tools
from fractionate.config.prompts import PromptsConfig
from fractionate.config.scorers import JudgeConfig, ScorerConfig
from fractionate.config.tools import ToolConfig
from fractionate.config.training import TrainConfig
from fractionate.config.values import (
    DEFAULT_STUDENT,
    MOST_SEED,
    Count,
    Dollars,
    Names,
    OwnName,
    Rate,
    RunName,
    Section,
    Share,
    Temperature,
    Times,
    ToolName,
    Variant,
    as_curve,
    as_json,
    as_list,
    as_variable,
)
from fractionate.types import AnswerForm


class DataConfig(Section):
    """The questions to learn from and to test on.

    References read `NAME[:PATH][#SPLIT][?KIND,…][@START-END[/STEP]]`.
    """

    train: Names = Field(default=[], description="data the students learn from: a reference or a list of them")
    test: Names = Field(description="data the pairs are measured on: a reference or a list of them")
    dev: Names = Field(
        default=[], description="data to choose students and stop trainings by: a reference or a list of them"
    )
    dev_share: float = Field(
        default=0.0, ge=0, lt=1, description="share of train's questions (whole passages) to use as dev instead"
    )
    columns: dict[str, str] = Field(
        default={},
        description="jsonl/CSV/Parquet columns: question, answers, context, id, subquestions, kind, group → your names",
    )
    scorer: ScorerConfig = Field(
        default=ScorerConfig(),
        description='how your own rows are scored: a name ("judge", "regex", FILE.py:FUNCTION, a data set, …), or a '
        "table with the name and its options; by their form of answer if empty",
    )
    scorers: dict[str, ScorerConfig] = Field(
        default={}, description="the same for single data sets: by name (gsm8k), or by a reference of train or test"
    )
    answer: Literal["", AnswerForm] = Field(
        default="", description="the form of the answers of `jsonl` rows; inferred from the known answers if empty"
    )
    metric: Literal["", "exact_match", "f1"] = Field(
        default="", description="the headline metric; the set's own if empty"
    )
    sealed: bool = Field(
        default=False, description="the test sets are judged once, at the whole error; no later verdict rests on them"
    )
    allow_overlap: Names = Field(default=[], description="test references that may share questions with train")


class ModelOptions(Section):
    """How one model is reached and sampled, under [models.options."NAME"]."""

    base_url: str = Field(default="", description="endpoint of an `openai:` model, instead of OPENAI_BASE_URL")
    api_key_env: Annotated[str, AfterValidator(as_variable)] = Field(
        default="", description="environment variable with the key"
    )
    temperature: Temperature = Field(default=0.0, description="sampling temperature of a first sample")
    max_tokens: int = Field(
        default=0,
        ge=0,
        le=10**7,
        description="output tokens per call at most, more or fewer than the strategy's own limit; 0 takes that",
    )
    batch_size: int = Field(default=16, ge=1, le=2**16, description="rows per batch of a local model")
    device: str = Field(default="", description="cpu or cuda[:N] for a local model; the best there is if empty")
    runtime: Literal["auto", "torch", "openvino", "openvino-int8"] = Field(
        default="torch",
        description="what runs a local model: torch, or OpenVINO (extra `fast`, CPU only): twice as fast with the same "
        "replies, four times with 8-bit weights and some different replies; replies are stored separately. auto: "
        "openvino where `fractionate doctor --prepare` has found the base's replies equal to torch's, else torch",
    )
    style: Literal["", "instruct", "student"] = Field(
        default="", description="prompt style: full instructions, or the short form students are trained on"
    )
    format: dict[str, str] = Field(
        default={}, description="fields of a recorded model's rows (id, question, strategy, output, …) → yours"
    )
    structured: bool = Field(
        default=False,
        description="ask for JSON through response_format where the server has it; plain text is read too",
    )
    reply_mb: float = Field(default=2.0, gt=0, le=256, description="megabytes of a reply at most; longer ones fail")
    tools: Literal["", "calls", "react", "retrieve"] = Field(
        default="",
        description='how a model with tools uses them: "calls" of the OpenAI protocol, "react" (actions in plain text) '
        'or "retrieve": what they find for the question stands in its prompt; by default "calls" for openai: and '
        'http: models, "retrieve" for local: ones, "react" for others',
    )
    tool_turns: int = Field(default=6, ge=1, le=100, description="times that a model may use tools for one reply")
    trust_remote_code: bool = Field(default=False, description="run code in a model's folder; only where you trust it")
    batch: bool = Field(default=False, description="send calls through the batch endpoint (half price)")
    extra_body: Annotated[dict[str, Any], AfterValidator(as_json)] = Field(
        default={}, description="further fields of the request body"
    )


class DistilledConfig(Section):
    """A student from elsewhere, an entry of `models.distilled`: the verdict needs its base to recommend it."""

    name: str = Field(description="the student's name in the model grammar")
    base: str = Field(default="", description="the model that it was trained from, untrained; measured in its place")
    role: Literal["", "decomposer", "solver"] = Field(
        default="", description="what it was trained for: it joins the matrix in this role; where it is named, if empty"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_name(cls, entry: Any) -> Any:
        return {"name": entry} if isinstance(entry, str) else entry

    @model_serializer(mode="wrap")
    def _plain(self, fields: SerializerFunctionWrapHandler) -> Any:
        return fields(self) if self.base or self.role else self.name


class ModelsConfig(Section):
    """The teacher, the solvers and decomposers to pair, and the student to train."""

    teacher: str = Field(default="", description="decomposes and, to screen, solves")
    solver: str = Field(
        default="", description='the model that "solver" stands for in the matrix; the teacher if empty'
    )
    solvers: Names = Field(
        default=["teacher"],
        description='solvers: "teacher", "solver", "student" (untuned), a student such as "E-A", or a model name; '
        '["solver"] by default where models.solver is named, and "student" too where a student solver is trained',
    )
    decomposers: Names = Field(
        default=["none", "teacher"],
        description='decomposers: "none", "teacher", "gold", "solver", "student" (untuned), a student or a '
        'model name; "student" too by default where a student decomposer is trained',
    )
    student: str = Field(default=DEFAULT_STUDENT, description="the base model that students are trained from")
    screen_solver: str = Field(default="", description="solves to screen; the teacher if empty")
    distilled: Annotated[list[DistilledConfig], BeforeValidator(as_list)] = Field(
        default=[],
        description="models that were distilled elsewhere, which the verdict judges as students: names of the matrix, "
        "or {name, base, role}, which are measured together with their untrained base",
    )
    options: dict[str, ModelOptions] = Field(default={}, description="per-model options, by model name")

    def distilled_in(self, role: Literal["decomposer", "solver"]) -> dict[str, DistilledConfig]:
        """Return the students from elsewhere that may play a role, by name."""
        return {one.name: one for one in self.distilled if one.role in ("", role)}

    @model_validator(mode="before")
    @classmethod
    def _measure_with_the_solver(cls, table: Any) -> Any:
        if isinstance(table, dict) and table.get("solver") and "solvers" not in table:
            return {**table, "solvers": ["solver"]}
        return table


class StudentConfig(Section):
    """A named student, under [students.NAME]: a variant with its own data, seed or base."""

    variant: Variant = Field(description="what it learns: D-T, D-R, E-T, E-A, …")
    train: Names = Field(
        default=[], description="what it learns from: a reference or a list; all of data.train if empty"
    )
    max_examples: Count = Field(default=0, description="examples at most; train.max_examples if 0")
    seed: int | None = Field(default=None, ge=0, le=MOST_SEED, description="seed of its training; run.seed if absent")
    base: str = Field(default="", description="the model it is trained from; models.student if empty")


Cap = Annotated[int, Field(ge=1, le=50)] | Literal["default", "none"]


class DecomposerConfig(Section):
    """A named decomposer with its own settings, under [decomposers.NAME]; missing settings are those of [run]."""

    model: str = Field(default="teacher", description='the model: "teacher", "solver", "student" or a model name')
    cap: Cap | None = Field(default=None, description="subquestions at most: a number, default, or none")
    shots: int | None = Field(default=None, ge=0, le=1, description="worked examples in its instruction (0 or 1)")
    context: bool | None = Field(default=None, description="whether it sees the question's passage")


class RunConfig(Section):
    """What the run measures, trains and writes."""

    name: RunName = Field(
        default="", description="the run's name; if empty the config file's, or of a fractionate.toml its folder's"
    )
    out: str = Field(default="", description="the run's folder; runs/NAME if empty")
    store: str = Field(default="", description="the SQLite file of all calls; calls.sqlite beside the config if empty")
    strategies: list[str] = Field(
        default=["single", "single-cot", "static"],
        description="strategies to measure: single, single-cot, self-consistency, static, stepwise, dynamic",
    )
    repeats: Times = Field(default=1, description="answers per test question; the question counts with their mean")
    temperature: Temperature = Field(default=0.0, description="temperature on test questions of models whose own is 0")
    rows_at_most: Count = Field(default=100_000, description="attempts up to which attempts.jsonl is written too")
    votes: Times = Field(default=5, description="answers per question of self-consistency")
    pairs: list[tuple[str, str]] = Field(
        default=[],
        description="decomposer and solver of the only cells to measure, instead of every decomposer with every solver",
    )
    variants: list[Variant] = Field(default=["D-R"], description="students to train; [] trains none")
    samples: int = Field(default=2, ge=1, le=100, description="teacher samples per question, to pass the screen")
    sample_temperature: Temperature = Field(
        default=0.7, description="temperature of the second and later samples, and of votes of a model at 0"
    )
    seed: int = Field(default=0, ge=0, le=MOST_SEED, description="seed of sampling, training and resampling")
    cap: Cap = Field(
        default="default",
        description="subquestions per decomposition at most: a number, the data set's default, or none",
    )
    decomposer_context: bool = Field(default=True, description="whether decomposers see the question's passage")
    shots: int = Field(default=0, ge=0, le=1, description="worked examples in the decomposer's instruction (0 or 1)")


class CurveConfig(Section):
    """A learning curve: students are trained on nested shares of their demonstrations too (`fractionate run --curve`).

    The table alone, empty, is enough.
    """

    shares: Annotated[list[Share], AfterValidator(as_curve)] = Field(
        default=["1/8", "1/4", "1/2"],
        description="shares of the demonstrations to train on beside all of them; each holds every smaller one",
    )
    students: Names = Field(
        default=[], description="students to draw a curve of, by name; every student of the run if empty"
    )


class BudgetConfig(Section):
    """Caps that are never passed."""

    usd: Dollars | None = Field(default=None, description="dollars of all paid calls")
    tokens: Count | None = Field(default=None, description="tokens, input and output, of all paid calls")
    decomposer_usd: Dollars | None = Field(default=None, description="dollars of decomposer calls")
    solver_usd: Dollars | None = Field(default=None, description="dollars of solver calls")
    scope: Literal["store", "run"] = Field(
        default="store",
        description='what counts against the caps: all that was ever spent through this "store", by whichever run, '
        'or what this "run" (this folder) has spent',
    )

    @property
    def has_caps(self) -> bool:
        """Whether anything is capped."""
        return any(cap is not None for cap in (self.usd, self.tokens, self.decomposer_usd, self.solver_usd))


class LimitsConfig(Section):
    """Bounds on the calls to a server."""

    concurrency: int = Field(
        default=64,
        ge=1,
        le=100_000,
        description="requests in flight at most, those included whose reply is not stored yet",
    )
    requests_per_minute: Rate | None = Field(default=None, description="requests per minute to one model at most")
    tokens_per_minute: Rate | None = Field(default=None, description="tokens per minute per model at most")
    timeout_s: float = Field(default=120.0, gt=0, le=86_400, description="the most seconds per call")
    attempts: int = Field(default=6, ge=1, le=1000, description="attempts per call before it is given up")


class ClusterConfig(Section):
    """A run on Ray (`--on ray`). Without `--on`, nothing here is used."""

    workers: int = Field(default=0, ge=0, le=100_000, description="shards that run at once; 0: one per core")
    scratch: str = Field(default="", description="no longer used: workers keep nothing on their disks")
    share: str = Field(
        default="",
        description="fsspec URL (s3://…, a path) of a remote copy of the calls that shards made, as Parquet parts",
    )


class PriceConfig(Section):
    """What one model costs, under [prices."NAME"]. User prices win over the dated price table."""

    input_per_million: Dollars | None = Field(default=None, description="dollars per million input tokens")
    cached_input_per_million: Dollars | None = Field(
        default=None, description="the same for cached input; input's if absent"
    )
    output_per_million: Dollars | None = Field(default=None, description="dollars per million output tokens")
    per_hour: Dollars | None = Field(default=None, description="dollars per hour of the machine a local model runs on")


class VerdictConfig(Section):
    """When a part counts as worth distilling."""

    margin: float = Field(default=2.0, ge=0, le=100, description="the non-inferiority margin, in percentage points")
    confidence: float = Field(default=0.95, gt=0.5, le=0.9999, description="confidence of intervals and of the verdict")
    solver: str = Field(default="", description="the undistilled solver; the teacher if it solves, else the first")
    strategy: str = Field(default="", description="the two-stage strategy judged; the first two-stage one if empty")
    usd_per_correct: Rate | None = Field(
        default=None, description="dollars that one more right answer is worth: then outcome and cost are judged as one"
    )
    questions: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="planned test questions: a verdict over fewer spends little of the error",
    )
    runs: Times = Field(
        default=1,
        description="pooled runs (seeds) that a verdict takes: with fewer there is none, and no error is spent",
    )
    seeds: Literal["mean", "worst"] = Field(
        default="mean",
        description='judges the "mean" of pooled runs, or the "worst" of them, against trainings that collapse',
    )
    candidates: Literal["all", "in order"] = Field(
        default="all",
        description='"all" share the error; "in order" tests the dearest first, at the whole error, while they pass',
    )
    looks: Literal["", "any"] = Field(
        default="", description='"any" gives intervals that hold however often you look as questions are added'
    )


class PublishedFigure(Section):
    """A published figure to lay beside the measured cells of the same pair, one [[published]] table each."""

    decomposer: str = Field(description="the decomposer, by a name of the matrix or a model name")
    solver: str = Field(description="the solver, likewise")
    value: float = Field(
        ge=0, le=100, strict=True, description="the figure: a share (0 to 1) or a percentage (above 1, to 100)"
    )
    source: str = Field(default="", description="where it was published")
    strategy: str = Field(default="", description="the strategy; every one of the right number of stages if empty")
    dataset: str = Field(default="", description="the data set; every one of the run if empty")

    @property
    def share(self) -> float:
        """The figure as a share of 1."""
        return self.value / 100 if self.value > 1 else self.value


BUILT_IN_TOOLS = {"atlas": ToolConfig(kind="atlas")}
"""Tools that need no table: `tool:atlas` knows the facts that the data set atlas-closed asks for."""


class Config(Section):
    """One run, whole."""

    data: DataConfig
    models: ModelsConfig = Field(default_factory=ModelsConfig)
    students: dict[OwnName, StudentConfig] = Field(default={}, description="named students")
    decomposers: dict[OwnName, DecomposerConfig] = Field(
        default={}, description="named decomposers with their own settings"
    )
    tools: dict[ToolName, ToolConfig] = Field(default={}, description="tools that models may use, by name")
    prompts: PromptsConfig = PromptsConfig()
    run: RunConfig = RunConfig()
    train: TrainConfig = TrainConfig()
    cluster: ClusterConfig = ClusterConfig()
    curve: CurveConfig | None = Field(default=None, description="train on shares of the demonstrations too")
    budget: BudgetConfig = BudgetConfig()
    limits: LimitsConfig = LimitsConfig()
    prices: dict[str, PriceConfig] = Field(default={}, description="dollars by model name")
    verdict: VerdictConfig = VerdictConfig()
    judge: JudgeConfig = JudgeConfig()
    published: list[PublishedFigure] = Field(default=[], description="published figures to lay beside the cells")

    def all_tools(self) -> dict[str, ToolConfig]:
        """Return the tools by name: those of the config, and those that are built in."""
        return {**BUILT_IN_TOOLS, **self.tools}

    def options(self, model: str) -> ModelOptions:
        """Return the options given for a model name (or one that shares a server with it), or the defaults.

        A model with tools has those of the model without them where it has none of its own.
        """
        options = self.models.options
        return options.get(model) or find_for(options, split_tools(model)[0]) or ModelOptions()
