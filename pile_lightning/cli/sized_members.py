"""What a finished run of several models says of each: its size, what it cost, what it reached."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pile_lightning.callbacks import read_metrics
from pile_lightning.callbacks.text_table import percent
from pile_lightning.cli.environment_run import last_value, load_environment, read_scores
from pile_lightning.modules.environment.specs import specs_of
from pile_lightning.nn import ChunkedHead, Counted

__all__ = ["COUNTS", "SizedMember", "off_by", "read_sized_members"]

COUNTS = {"non_embedding": "non-embedding parameters", "parameters": "all parameters"}
"""What N may be: fields of a member, and what they are called."""

_OF_ROWS = ("seq_len", "packing", "short_rows", "seed")
"""What of a fingerprint says how text is cut and ordered, not which it is."""


@dataclass(frozen=True, kw_only=True)
class SizedMember:
    """A member that was trained to the end of its run."""

    name: str
    """Its name."""
    parameters: int
    """All of them, tied ones once."""
    non_embedding: int
    """Those but for tables that are looked up and the matrix that gives logits."""
    tokens: float
    """What it was trained on until it was scored."""
    flops: float | None
    """Of training on them, matrix products only; None where its network does not count them."""
    bits_per_byte: float
    """Its last held-out score."""
    text: Mapping[str, Any]
    """Fingerprint of what it was trained and scored on."""


def off_by(predicted: float, measured: float) -> str:
    """Say how far a prediction is off.

    Example:
        >>> off_by(1.02, 1.0)
        '2.00 % too high'
    """
    off = predicted / measured - 1
    return f"{percent(abs(off))} too {'high' if off > 0 else 'low'}"


def read_sized_members(run: Path) -> tuple[list[SizedMember], dict[str, str]]:
    """Return the members of a run's folder, and by name why others are left out.

    Networks are built without memory for their weights, to be counted.

    Args:
        run: The folder.

    Raises:
        FileNotFoundError: Where it is no run, or has no checkpoint.
        ValueError: Where the run was of one model, or no member has a score.
    """
    checkpoint = load_environment(
        run, needs="a law needs several sizes", like="configs/environment/sizes.yaml"
    )
    settings = checkpoint["hyper_parameters"]
    rows = read_metrics(run / "metrics.csv")
    scores = read_scores(run, settings["members"])
    last_step = max(score[0] for score in scores.values() if score is not None)
    tokens_a_step = _tokens_a_step(run, rows)
    text = _text(checkpoint)
    found: list[SizedMember] = []
    left_out: dict[str, str] = {}
    for name, score in scores.items():
        if score is None or score[0] < last_step:
            ended = "was never scored" if score is None else f"was stopped after step {score[0]}"
            left_out[name] = f"{ended}, and the others were scored at step {last_step}"
        elif settings["members"][name].get("frozen"):
            left_out[name] = "it is frozen, and what it was trained on is not known here"
        elif not math.isfinite(score[1]):
            left_out[name] = f"its score is {score[1]}"
        else:
            tokens = tokens_a_step * score[0]
            found.append(
                SizedMember(
                    name=name,
                    tokens=tokens,
                    bits_per_byte=score[1],
                    text=text,
                    **_size(name, settings, tokens=tokens),
                )
            )
    return found, left_out


def _text(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprint that the data module left, under whatever its name is."""
    states = (value for value in checkpoint.values() if isinstance(value, Mapping))
    found: Mapping[str, Any] = next(
        (state["fingerprint"] for state in states if "fingerprint" in state), {}
    )
    return {name: value for name, value in found.items() if name not in _OF_ROWS}


def _tokens_a_step(run: Path, rows: Sequence[dict[str, float]]) -> float:
    counted = last_value(rows, "throughput/tokens")
    if counted is None:
        raise ValueError(
            f"{run / 'metrics.csv'} does not say how many tokens were trained on; set "
            f"trainer.log_every_n_steps to at most trainer.max_steps"
        )
    return counted[1] / counted[0]


def _size(name: str, settings: dict[str, Any], *, tokens: float) -> dict[str, Any]:
    spec = specs_of({"members": {name: settings["members"][name]}}, name="the checkpoint")[name]
    seq_len = settings["max_seq_len"]
    with torch.device("meta"):
        module = spec.build(vocab_size=settings["vocab_size"], max_seq_len=seq_len)
        network = module.built_network
    parameters = {id(p): p.numel() for p in network.parameters()}
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    if isinstance(network, ChunkedHead):
        tables.add(id(network.head_weight))
    flops = network.flops_per_token(seq_len) * tokens if isinstance(network, Counted) else None
    return {
        "parameters": sum(parameters.values()),
        "non_embedding": sum(n for key, n in parameters.items() if key not in tables),
        "flops": flops,
    }
