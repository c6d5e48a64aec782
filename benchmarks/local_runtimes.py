"""Runtimes for local weights compared: tokens per second of SmolLM2-135M on one core, one row and batches.

    python -m venv /tmp/runtimes && /tmp/runtimes/bin/pip install '.[fast,train]' xllamacpp ctranslate2 torchao \
        onnxruntime-genai onnx onnx-ir
    /tmp/runtimes/bin/python benchmarks/local_runtimes.py [--only torch-fp32 openvino-f16] [--rounds 3]

Every runtime has its own process and one thread. It prefills the same prompts of 40 tokens and decodes 32 tokens
greedily. The figure is the processor time of the process, the minimum over rounds: load on the machine affects wall
time, and processor time only through caches and memory. A runtime that is not installed or fails prints a line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fractionate.models.local.gguf_file import write_gguf
from fractionate.models.local.model import eos_ids_in, load_model, load_tokenizer
from fractionate.models.local.weights import SMOLLM2, resolve

PROMPT, WRITTEN = 40, 32
BATCHES = (1, 8)
Write = Callable[[int, int], Any]
"""A function that decodes a number of tokens for a number of prompts."""


def prompts(rows: int) -> list[list[int]]:
    return [list(range(100 + row, 100 + row + PROMPT)) for row in range(rows)]


def torch_write(change: Callable[[Any], Any]) -> Write:
    import torch

    from fractionate.models.local.batch import generate
    from fractionate.models.local.rows import Prompt

    torch.set_num_threads(1)
    weights = resolve(SMOLLM2)
    model, tokenizer = change(load_model(weights, "cpu")), load_tokenizer(weights.folder())

    def write(rows: int, tokens: int) -> None:
        generate(model, tokenizer, [Prompt(prompt, tokens) for prompt in prompts(rows)], ())

    return write


def torch_fp32() -> Write:
    return torch_write(lambda model: model)


def torch_bf16() -> Write:
    import torch

    return torch_write(lambda model: model.to(torch.bfloat16))


def torch_dynamic_int8() -> Write:
    import torch

    def change(model: Any) -> Any:
        return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)

    return torch_write(change)


def torchao_int8_weights() -> Write:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    def change(model: Any) -> Any:
        quantize_(model, Int8WeightOnlyConfig())
        return model

    return torch_write(change)


def torch_compiled() -> Write:
    import torch

    def change(model: Any) -> Any:
        model.forward = torch.compile(model.forward, dynamic=True)
        return model

    return torch_write(change)


def gguf(kind: str) -> Path:
    weights = resolve(SMOLLM2)
    path = Path(tempfile.gettempdir()) / f"smollm2-{kind}.gguf"
    if not path.is_file():
        write_gguf(load_model(weights, "cpu"), load_tokenizer(weights.folder()), SMOLLM2, path, kind)
    return path


def llama_cpp(path: Path) -> Write:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel = 32 * 512, 32
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity = -1
    server = xllamacpp.Server(params)

    def write(rows: int, tokens: int) -> None:
        asked = [
            {"prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
            for prompt in prompts(rows)
        ]
        threads = [threading.Thread(target=server.handle_completions, args=(body,)) for body in asked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return write


def llama_cpp_q4() -> Write:
    return llama_cpp(resolve(SMOLLM2).source)


def llama_cpp_q8() -> Write:
    return llama_cpp(gguf("q8_0"))


def llama_cpp_f16() -> Write:
    return llama_cpp(gguf("f16"))


def openvino(path: Path) -> Write:
    from fractionate.models.local.openvino import OpenVinoBatch
    from fractionate.models.local.rows import Prompt, Row, run_to_end

    weights = resolve(SMOLLM2)
    tokenizer, batch = load_tokenizer(weights.folder()), OpenVinoBatch(path, (), 1)

    def write(rows: int, tokens: int) -> None:
        run_to_end(batch, [Row(Prompt(prompt, tokens), tokenizer) for prompt in prompts(rows)], lambda: False)

    return write


def openvino_q8() -> Write:
    return openvino(gguf("q8_0"))


def openvino_f16() -> Write:
    return openvino(gguf("f16"))


def ctranslate2_int8() -> Write:
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    weights = resolve(SMOLLM2)
    folder = Path(tempfile.gettempdir()) / "smollm2-ct2-int8"
    if not folder.is_dir():
        TransformersConverter(str(weights.folder())).convert(str(folder), quantization="int8")
    generator = ctranslate2.Generator(str(folder), intra_threads=1, inter_threads=1)
    tokenizer = load_tokenizer(weights.folder())

    def write(rows: int, tokens: int) -> None:
        asked = [tokenizer.convert_ids_to_tokens(prompt) for prompt in prompts(rows)]
        generator.generate_batch(
            asked, max_length=tokens, min_length=tokens, include_prompt_in_result=False, sampling_topk=1
        )

    return write


def onnx_int8() -> Write:
    return onnx("int8")


def onnx_int4() -> Write:
    return onnx("int4")


def onnx(precision: str) -> Write:
    import onnxruntime_genai

    weights = resolve(SMOLLM2)
    folder = Path(tempfile.gettempdir()) / f"smollm2-onnx-{precision}"
    if not (folder / "genai_config.json").is_file():
        command = ["-m", "onnxruntime_genai.models.builder", "-i", str(weights.folder()), "-o", str(folder)]
        done = subprocess.run(
            [sys.executable, *command, "-p", precision, "-e", "cpu", "-c", str(folder)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
    settings = json.loads((folder / "genai_config.json").read_text())
    options = settings["model"]["decoder"]["session_options"]
    options["intra_op_num_threads"] = 1
    (folder / "genai_config.json").write_text(json.dumps(settings))
    model = onnxruntime_genai.Model(str(folder))

    def write(rows: int, tokens: int) -> None:
        import numpy as np

        params = onnxruntime_genai.GeneratorParams(model)
        params.set_search_options(max_length=PROMPT + tokens, min_length=PROMPT + tokens, batch_size=rows)
        generator = onnxruntime_genai.Generator(model, params)
        generator.append_tokens(np.array(prompts(rows), dtype=np.int32))
        for _ in range(tokens):
            generator.generate_next_token()

    return write


RUNTIMES: dict[str, Callable[[], Write]] = {
    "torch-fp32": torch_fp32,
    "torch-bf16": torch_bf16,
    "torch-dynamic-int8": torch_dynamic_int8,
    "torchao-int8-weights": torchao_int8_weights,
    "torch-compile": torch_compiled,
    "ctranslate2-int8": ctranslate2_int8,
    "onnxruntime-genai-int8": onnx_int8,
    "onnxruntime-genai-int4": onnx_int4,
    "llama.cpp-q4_1": llama_cpp_q4,
    "llama.cpp-q8_0": llama_cpp_q8,
    "llama.cpp-f16": llama_cpp_f16,
    "openvino-q8_0": openvino_q8,
    "openvino-f16": openvino_f16,
}


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Return processor seconds per prompt token and per decoded token, by batch, and the load time."""
    started = time.process_time()
    write = RUNTIMES[name]()
    found: dict[str, Any] = {"load_s": time.process_time() - started}
    for rows in BATCHES:
        write(rows, 2)
        taken = []
        for _ in range(rounds):
            marks = [time.process_time()]
            for tokens in (1, 1 + WRITTEN):
                write(rows, tokens)
                marks.append(time.process_time())
            taken.append((marks[1] - marks[0], marks[2] - marks[1]))
        read, whole = (min(pair[at] for pair in taken) for at in (0, 1))
        found[str(rows)] = {"read": rows * PROMPT / read, "written": rows * WRITTEN / max(whole - read, 1e-9)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(RUNTIMES), default=list(RUNTIMES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=list(RUNTIMES), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        eos_ids_in(resolve(SMOLLM2).folder())
        print(json.dumps(measure(chosen.measure, chosen.rounds)))
        return
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("| runtime | load, s | prompt tokens/s | decoding, one row | decoding, 8 rows |")
    print("| --- | --- | --- | --- | --- |")
    for name in chosen.only:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(
            [sys.executable, __file__, "--measure", name, "--rounds", str(chosen.rounds)],
            capture_output=True,
            text=True,
            env=environment,
        )
        if done.returncode:
            print(f"| {name} | not measured: {(done.stderr.strip().splitlines() or ['?'])[-1][:150]} |", flush=True)
            continue
        found = json.loads(done.stdout.strip().splitlines()[-1])
        alone, eight = (found[str(rows)] for rows in BATCHES)
        speeds = (eight["read"], alone["written"], eight["written"])
        print(
            f"| {name} | {found['load_s']:.1f} | " + " | ".join(f"{speed:.0f}" for speed in speeds) + " |", flush=True
        )


if __name__ == "__main__":
    main()
