"""Create the logs in tests/logs/real with the original tools; the tests read them without those tools.

    python -m venv venv && venv/bin/pip install inspect_ai==0.3.285
    venv/bin/python tests/logs/make_real_logs.py inspect tests/logs/real
    venv/bin/pip install lm_eval==0.4.13
    venv/bin/python tests/logs/make_real_logs.py lm-eval tests/logs/real

No model is asked: inspect_ai's mockllm gives the replies below, lm-eval's dummy model its own. An older inspect_ai
(0.3.100) writes logs that need no Zstandard: `inspect tests/logs/real old-` makes those.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

PASSAGES = {
    "zoo": "The zoo has 12 lions, 7 tigers and 20 apes.",
    "ship": "The ship carries 40 sailors, 3 cooks and 2 dogs.",
    "shop": "The shop sold 15 hats, 9 coats and 30 socks.",
}
QUESTIONS = [
    ("zoo", "How many lions are there?", "12"),
    ("zoo", "How many big cats are there?", "19"),
    ("ship", "How many people are aboard?", "43"),
    ("ship", "How many dogs are aboard?", "2"),
    ("shop", "How many hats were sold?", "15"),
    ("shop", "How many hats and coats were sold?", "24"),
]
# The replies of two epochs, question by question. "?" is graded as partly right, "-" as no answer.
REPLIES = {
    "strong": ["12", "19", "43", "2", "15", "?", "12", "19", "43", "2", "15", "24"],
    "weak": ["12", "12", "40", "2", "15", "15", "11", "12", "43", "-", "15", "?"],
}


def inspect_logs(out: Path, prefix: str) -> None:
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import Score, accuracy, includes, scorer, stderr
    from inspect_ai.solver import generate

    @scorer(metrics=[accuracy(), stderr()])
    def graded():
        async def score(state, target):
            said = state.output.completion
            value = {"?": "P", "-": "N"}.get(said, "C" if said == target.text else "I")
            return Score(value=value, answer=said)

        return score

    def written_as(name, samples, outputs, epochs):
        with tempfile.TemporaryDirectory() as folder:
            (log,) = eval(
                Task(name="counting", dataset=samples, solver=generate(), scorer=[graded(), includes()]),
                model=get_model(outputs[0].model, custom_outputs=outputs, memoize=False),
                epochs=epochs,
                log_dir=folder,
                log_format=name.rsplit(".", 1)[1],
                max_connections=1,
                max_samples=1,
                display="none",
            )
            assert log.status == "success", log.error
            (written,) = Path(folder).iterdir()
            shutil.copy(written, out / name)

    samples = [
        Sample(
            id=f"q{number}", input=question, target=answer, metadata={"passage": PASSAGES[passage], "about": passage}
        )
        for number, (passage, question, answer) in enumerate(QUESTIONS, 1)
    ]
    for system, replies in REPLIES.items():
        outputs = []
        for reply in replies:
            output = ModelOutput.from_content(f"mockllm/{system}", reply)
            output.usage = ModelUsage(input_tokens=20, output_tokens=len(reply), total_tokens=20 + len(reply))
            outputs.append(output)
        written_as(f"{prefix}{system}.eval", samples, outputs, epochs=2)
        if system == "strong":
            written_as(f"{prefix}{system}.json", samples[:2], outputs, epochs=1)


def lm_eval_logs(out: Path) -> None:
    """Two tasks of one's own, so that nothing is downloaded: choices (two metrics) and generation (two filters).

    The dummy model answers every generation with "lol" and weighs choices at random.
    """
    import random

    import lm_eval
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [
            {
                "id": f"q{number}",
                "passage": PASSAGES[passage],
                "question": question,
                "choices": [answer, "5", "a great many", "0"],
                "gold": 0,
                "answer": answer,
                "word": "lol" if number % 2 else "l",
            }
            for number, (passage, question, answer) in enumerate(QUESTIONS, 1)
        ]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        common = (
            f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {folder}/rows.jsonl\ntest_split: test\n"
            'doc_to_text: "{{passage}} {{question}}"\n'
        )
        (folder / "choosing.yaml").write_text(
            "task: choosing\n" + common + 'output_type: multiple_choice\ndoc_to_choice: "{{choices}}"\n'
            "doc_to_target: gold\nmetric_list:\n  - metric: acc\n  - metric: acc_norm\n"
        )
        (folder / "counting.yaml").write_text(
            "task: counting\n" + common + 'output_type: generate_until\ndoc_to_target: "{{word}}"\n'
            "generation_kwargs:\n  until: ['.']\nmetric_list:\n  - metric: exact_match\nfilter_list:\n"
            "  - name: strict\n    filter:\n      - function: take_first\n"
            "  - name: flexible\n    filter:\n      - function: regex\n        regex_pattern: '(\\w)'\n"
            "      - function: take_first\n"
        )
        for system, seed in (("one", 0), ("two", 5)):
            random.seed(seed)
            tracker = EvaluationTracker(output_path=str(folder / system))
            results = lm_eval.simple_evaluate(
                model="dummy",
                tasks=["choosing", "counting"],
                task_manager=TaskManager(include_path=str(folder), include_defaults=False),
                log_samples=True,
                random_seed=seed,
                evaluation_tracker=tracker,
            )
            samples = results.pop("samples")
            tracker.save_results_aggregated(results=results, samples=samples)
            for task in results["configs"]:
                tracker.save_results_samples(task_name=task, samples=samples[task])
            shutil.rmtree(out / f"lm_eval_{system}", ignore_errors=True)
            (out / f"lm_eval_{system}").mkdir()
            for written in (folder / system).rglob("samples_*.jsonl"):
                shutil.copy(written, out / f"lm_eval_{system}" / written.name)


if __name__ == "__main__":
    tool, folder, *rest = sys.argv[1:]
    if tool == "inspect":
        inspect_logs(Path(folder), rest[0] if rest else "")
    else:
        lm_eval_logs(Path(folder))
