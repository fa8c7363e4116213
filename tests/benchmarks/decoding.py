"""What a token costs to generate: ours beside litgpt and Hugging Face.

    OMP_NUM_THREADS=1 taskset -c 0 python tests/benchmarks/decoding.py

All have random weights of one Llama-like size, read the same prompt and go on greedily, in one
process, in turn. A line has the milliseconds of the prefill and the tokens a second of what comes
after, by the process's CPU time and by the wall clock: the median of the rounds. The ratio is ours
over the best peer's by CPU time, above 1 where ours is better. With ``--compile`` the peers run
compiled too, after as many tokens as that takes. What is not installed is said to be missing.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import Tensor

from pile_lightning.nn import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    optimize_for_inference,
)
from pile_lightning.nn.rows import Rows
from tests.benchmarks.systems import hugging_face, lit_gpt

System = Callable[[Tensor], Iterator[Any]]
"""Reads a prompt (batch, seq) and yields once it has, and after each further token."""


def make_ours(arguments: argparse.Namespace, dtype: torch.dtype, quantize: Any = "none") -> System:
    """Return this package's decoder."""
    network = DecoderConfig(
        d_model=arguments.d_model,
        num_layers=arguments.layers,
        attention=AttentionConfig(
            num_heads=arguments.heads, num_kv_heads=arguments.kv_heads, qk_norm=None
        ),
        feed_forward=FeedForwardConfig(activation="silu", gated=True, d_ff=arguments.d_ff),
        tie_embeddings=False,
        embedding_norm=None,
    ).build(vocab_size=arguments.vocab, max_seq_len=arguments.prompt + arguments.new)
    optimize_for_inference(network, dtype=dtype, quantize=quantize)

    def run(prompt: Tensor) -> Iterator[Any]:
        total = arguments.prompt + arguments.new
        rows = Rows(network, capacity=len(prompt), room=total, limit=total, device=prompt.device)
        logits = rows.add(prompt.tolist())
        while True:
            ids = logits.argmax(-1).tolist()
            yield ids
            logits = rows.step(ids)

    return run


def sizes(arguments: argparse.Namespace) -> dict[str, int]:
    """Return what a Llama's config is made of."""
    return {
        "num_layers": arguments.layers,
        "d_model": arguments.d_model,
        "num_heads": arguments.heads,
        "num_kv_heads": arguments.kv_heads,
        "d_ff": arguments.d_ff,
        "vocab_size": arguments.vocab,
        "seq_len": arguments.prompt + arguments.new,
    }


def make_litgpt(arguments: argparse.Namespace, dtype: torch.dtype, *, compiled: bool) -> System:
    """Return litgpt's model and cache, called as its ``generate_fn`` calls it."""
    from litgpt.model import GPT

    total = arguments.prompt + arguments.new
    model = GPT(lit_gpt.llama_config(**sizes(arguments))).to(dtype).eval()
    step = torch.compile(model) if compiled else model

    @torch.inference_mode()
    def run(prompt: Tensor) -> Iterator[Any]:
        model.set_kv_cache(batch_size=len(prompt), max_seq_length=total, dtype=dtype)
        at = torch.arange(prompt.shape[1])
        logits = model(prompt, at, input_pos_maxp1=prompt.shape[1])[:, -1]
        end = prompt.shape[1]
        at = at[-1:] + 1
        while True:
            ids = logits.argmax(-1, keepdim=True)
            ids.tolist()
            yield ids
            end += 1
            # a length that is a number would be compiled anew at each token
            size = None if compiled else end
            logits = step(ids, at, input_pos_maxp1=size)[:, -1]
            at = at + 1

    return run


def make_hugging_face(
    arguments: argparse.Namespace, dtype: torch.dtype, *, static: bool, compiled: bool = False
) -> System:
    """Return transformers' Llama with one of its caches, called as its ``generate`` calls it."""
    from transformers import DynamicCache, LlamaForCausalLM, StaticCache

    total = arguments.prompt + arguments.new
    config = hugging_face.llama_config(**sizes(arguments), tie_word_embeddings=False)
    model = LlamaForCausalLM(config).to(dtype).eval()
    step = torch.compile(model) if compiled else model

    @torch.inference_mode()
    def run(prompt: Tensor) -> Iterator[Any]:
        cache = StaticCache(config=config, max_cache_len=total) if static else DynamicCache()
        logits = model(prompt, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        while True:
            ids = logits[:, -1].argmax(-1, keepdim=True)
            ids.tolist()
            yield ids
            logits = step(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits

    return run


MAKERS: dict[str, Callable[..., System]] = {
    "ours": make_ours,
    "ours, int8": lambda a, dtype: make_ours(a, dtype, "int8"),
    "litgpt": lambda a, dtype: make_litgpt(a, dtype, compiled=False),
    "litgpt, compiled": lambda a, dtype: make_litgpt(a, dtype, compiled=True),
    "Hugging Face, dynamic": lambda a, dtype: make_hugging_face(a, dtype, static=False),
    "Hugging Face, static": lambda a, dtype: make_hugging_face(a, dtype, static=True),
    "Hugging Face, compiled": lambda a, dtype: make_hugging_face(
        a, dtype, static=True, compiled=True
    ),
}


def clocks() -> tuple[float, float]:
    """Return the process's CPU time and the wall clock."""
    return time.process_time(), time.perf_counter()


def measure(system: System, prompt: Tensor, new: int) -> list[float]:
    """Return CPU and wall seconds of the prefill, and of a further token."""
    starts = clocks()
    steps = system(prompt)
    next(steps)
    read = clocks()
    for _ in range(new - 1):
        next(steps)
    done = clocks()
    prefill = [end - start for start, end in zip(starts, read, strict=True)]
    return prefill + [(end - start) / (new - 1) for start, end in zip(read, done, strict=True)]


def compare(systems: dict[str, System], arguments: argparse.Namespace, batch: int) -> None:
    """Measure all systems in turn, and print a line for each."""
    prompt = torch.randint(arguments.vocab, (batch, arguments.prompt))
    rounds: dict[str, list[list[float]]] = {name: [] for name in systems}
    for name, system in systems.items():  # what is compiled or allocated at first
        measure(system, prompt, arguments.new if "compiled" in name else 3)
    for _ in range(arguments.rounds):
        for name, system in systems.items():
            rounds[name].append(measure(system, prompt, arguments.new))
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in rounds.items()
    }
    peers = [row for name, row in medians.items() if not name.startswith("ours")]
    head = f"batch {batch}"
    print(f"\n{head:<24}{'prefill':>10}{'ratio':>8}{'decode':>12}{'ratio':>8}{'wall':>12}")
    for name, (prefill, _, token, wall) in medians.items():
        best = [min(row[column] for row in peers) if peers else float("nan") for column in (0, 2)]
        print(
            f"{name:<24}{1000 * prefill:7.0f} ms{best[0] / prefill:8.2f}"
            f"{batch / token:8.1f} t/s{best[1] / token:8.2f}{batch / wall:8.1f} t/s",
            flush=True,
        )


def main() -> None:
    """Print a table for each type and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--d_model", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv_heads", type=int, default=8)
    parser.add_argument("--d_ff", type=int, default=1408)
    parser.add_argument("--vocab", type=int, default=32768)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for dtype in arguments.dtype:
        print(f"\n{dtype}, torch {torch.__version__}, {arguments.threads} thread(s)")
        systems = {}
        for name, make in MAKERS.items():
            if "compiled" in name and not arguments.compile:
                continue
            try:
                torch.manual_seed(0)
                systems[name] = make(arguments, getattr(torch, dtype))
            except ImportError as error:
                print(f"{name}: missing ({error})", file=sys.stderr)
        with torch.no_grad():
            for batch in arguments.batch:
                compare(systems, arguments, batch)


if __name__ == "__main__":
    main()
