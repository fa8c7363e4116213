"""What a finished run of several models says of each: its size, what it cost, what it reached."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pile_lightning.callbacks import read_metrics
from pile_lightning.checkpoint import load_whole
from pile_lightning.cli.runs import resolve_checkpoint
from pile_lightning.modules.environment.specs import member_specs
from pile_lightning.nn import ChunkedHead, Counted

__all__ = ["SizedMember", "read_sized_members"]

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


def read_sized_members(run: Path) -> tuple[list[SizedMember], dict[str, str]]:
    """Return the members of a run's folder, and by name why others are left out.

    Networks are built without memory for their weights, to be counted.

    Args:
        run: The folder.

    Raises:
        FileNotFoundError: Where it is no run, or has no checkpoint.
        ValueError: Where the run was of one model, or no member has a score.
    """
    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(
            f"{run} is not the folder of a run: it has no config.yaml; train one with "
            f"`python train.py fit --config configs/environment/sizes.yaml`"
        )
    path = resolve_checkpoint("last", run)
    assert path is not None
    checkpoint = load_whole(path, without=("state_dict", "optimizer_states"))
    if "environment" not in checkpoint:
        raise ValueError(
            f"{run} is a run of one model, and a law needs several sizes; train them in one run, "
            f"as configs/environment/sizes.yaml does"
        )
    settings = checkpoint["hyper_parameters"]
    rows = read_metrics(run / "metrics.csv")
    scores = {name: _last(rows, f"val/{name}/bits_per_byte") for name in settings["members"]}
    last_step = max((score[0] for score in scores.values() if score is not None), default=None)
    if last_step is None:
        raise ValueError(
            f"no member of {run} has a held-out score in metrics.csv; let the run be validated: "
            f"set trainer.val_check_interval to at most trainer.max_steps"
        )
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


def _last(rows: Sequence[dict[str, float]], column: str) -> tuple[int, float] | None:
    """Return the last value of a column with its step."""
    return next(((int(r["step"]), r[column]) for r in reversed(rows) if column in r), None)


def _text(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprint that the data module left, under whatever its name is."""
    states = (value for value in checkpoint.values() if isinstance(value, Mapping))
    found: Mapping[str, Any] = next(
        (state["fingerprint"] for state in states if "fingerprint" in state), {}
    )
    return {name: value for name, value in found.items() if name not in _OF_ROWS}


def _tokens_a_step(run: Path, rows: Sequence[dict[str, float]]) -> float:
    counted = _last(rows, "throughput/tokens")
    if counted is None:
        raise ValueError(
            f"{run / 'metrics.csv'} does not say how many tokens were trained on; set "
            f"trainer.log_every_n_steps to at most trainer.max_steps"
        )
    return counted[1] / counted[0]


def _size(name: str, settings: dict[str, Any], *, tokens: float) -> dict[str, Any]:
    spec = member_specs({name: settings["members"][name]}, None, None)[name]
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
