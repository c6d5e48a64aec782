"""The configs that `fractionate init` writes."""

OWN = """\
# Written by `fractionate init`. `fractionate run fractionate.toml --dry-run` says what a run will cost and can show;
# `fractionate run fractionate.toml` takes it from questions to a verdict. docs/reference/config.md lists every key.
# Read from {read}.

[data]
train = {train}        # {trained:,} questions: students learn from these
test = {test}          # {tested:,} questions: pairs are measured on these
{columns}
answer = "{answer}"                # the form of the answers, which decides how replies are asked for, read and scored

[models]
teacher = {teacher}                # the model you pay today: it decomposes and, to screen, solves
solvers = ["teacher", "student", "E-A"]                 # "student": the model below before training, a control
decomposers = ["none", "teacher", "student", "D-R"]     # also "D-T", "gold" or any model name
student = "local:HuggingFaceTB/SmolLM2-135M-Instruct"   # small enough for a laptop; any model of the hub, or a path

[run]
# The verdict needs its controls: single stage with and without chain of thought, and the untrained student.
strategies = ["single", "single-cot", "static"]
variants = ["D-R", "E-A"]          # D-R decomposes, trained on screened demonstrations; E-A solves
samples = 2                        # teacher samples per question, to pass the screen
seed = 0

# [budget]
# usd = 5.0                        # a run stops before it passes this

[verdict]
margin = 2.0                       # a loss of so many percentage points is acceptable

{prices}
[prices."local:HuggingFaceTB/SmolLM2-135M-Instruct"]
per_hour = 0.05                    # dollars per hour of the machine that the student will run on; 0 if it is free
"""

PRICE_BY_TOKEN = """\
# The teacher's price is {known}
# [prices.{model}]
# input_per_million = 0.15
# output_per_million = 0.60
"""

PRICE_BY_HOUR = """\
[prices.{model}]
per_hour = 0.05                    # dollars per machine hour; 0 if it is free
"""

EXAMPLE = """\
# Written by `fractionate init`: a small example that needs no key. The teacher's replies are recorded, on questions of
# the embedded data set; both students are trained and measured on this machine.
# For your own questions: fractionate init my-run --data questions.csv --teacher openai:gpt-4o-mini

[data]
train = "{train}"                  # students learn from these questions
test = "{test}"                    # pairs are measured on these: one question per passage

[models]
teacher = "recorded:teacher.jsonl"                      # decomposes and, to screen, solves; a fifth of it is flawed
solvers = ["local:HuggingFaceTB/SmolLM2-135M-Instruct", "E-A"]
decomposers = ["none", "teacher", "student", "D-R"]     # "student", untrained, is a control
student = "local:HuggingFaceTB/SmolLM2-135M-Instruct"

[models.options."local:HuggingFaceTB/SmolLM2-135M-Instruct"]
max_tokens = 64
batch_size = 32

[run]
strategies = ["single", "single-cot", "static"]
variants = ["D-R", "E-A"]          # D-R decomposes, trained on screened demonstrations; E-A solves
samples = 2                        # teacher samples per question, to pass the screen
decomposer_context = false         # these questions are decomposed without reading their passage
seed = 0

[train]
learning_rate = 2e-3

# Stated prices: the teacher is charged like gpt-4o-mini, this machine like a rented one with two cores.
[prices."recorded:teacher.jsonl"]
input_per_million = 0.15
output_per_million = 0.60

[prices."local:HuggingFaceTB/SmolLM2-135M-Instruct"]
per_hour = 0.05
"""
