"""The rows of the table of levers: each a change or two of the quickstart's config."""

from typing import Any

__all__ = ["ROWS"]

MODEL, NETWORK = "model.init_args", "model.init_args.network.init_args"
OPTIM = "pile_lightning.optim"


def _adamw(lr: float, **rates: float) -> dict[str, Any]:
    settings = {"lr": lr, **rates}
    return {f"{MODEL}.optimizer": {"class_path": f"{OPTIM}.AdamWConfig", "init_args": settings}}


def _schedule(name: str, **fields: float) -> dict[str, Any]:
    return {f"{MODEL}.schedule": {"class_path": f"{OPTIM}.{name}", "init_args": fields}}


def _network(**fields: Any) -> dict[str, Any]:
    return {f"{NETWORK}.{name}": value for name, value in fields.items()}


_NO_TABLES = _network(tables=None)
_NARROW = {"distribution": "uniform", "std": 0.5, "scaled_by": "fan_in"}

ROWS: dict[str, dict[str, Any]] = {
    "base": {},
    # what steps the weights
    "AdamW, lr 0.002": _adamw(0.002),
    "AdamW, lr 0.004": _adamw(0.004),
    "AdamW, lr 0.008": _adamw(0.008),
    "AdamW, lr 0.004, no tables": _adamw(0.004) | _NO_TABLES,
    "AdamW, lr 0.004, rates of tables their own": _adamw(0.004, table_lr=0.03, lookup_lr=0.3),
    "Muon, lr 0.02": {f"{MODEL}.optimizer.init_args.lr": 0.02},
    "Muon, lr 0.045": {f"{MODEL}.optimizer.init_args.lr": 0.045},
    # the learning rate over the run
    "warm-up, stable, decay 0.2": _schedule("WarmupStableDecayConfig", decay=0.2),
    "warm-up, stable, decay 0.5": _schedule("WarmupStableDecayConfig", decay=0.5),
    "cosine to 0": _schedule("CosineConfig", floor=0.0),
    "cosine to 0.1": _schedule("CosineConfig", floor=0.1),
    "linear to 0.1": _schedule("LinearConfig", floor=0.1),
    "half the batch": {"data.init_args.batch_size": 4},
    "twice the batch": {"data.init_args.batch_size": 16},
    # the network
    "no QK-norm": _network(attention={"qk_norm": None}),
    "SwiGLU": _network(feed_forward={"activation": "silu", "gated": True, "d_ff": 704}),
    "output projections not zero": _network(init={"output": _NARROW}),
    "untied head": _network(tie_embeddings=False),
    "6 layers": _network(num_layers=6),
    # the loss
    "z-loss 1e-4": {f"{MODEL}.z_loss": 1e-4},
    "z-loss 1e-3": {f"{MODEL}.z_loss": 1e-3},
    "logits capped at 15": _network(logit_cap=15.0),
    "logits capped at 30": _network(logit_cap=30.0),
    # beside the blocks
    "no tables": _NO_TABLES,
    "no smear": _network(tables={"smear": False}),
    "no bigram table": _network(tables={"ngram_rows": []}),
    "no value embeddings": _network(tables={"value_layers": 0}),
    "value embeddings in all layers": _network(tables={"value_layers": 4}),
    "bigram table of 65536 rows": _network(tables={"ngram_rows": [65536]}),
    "trigram table of 65536 rows, too": _network(tables={"ngram_rows": [16384, 65536]}),
    "value residual": _network(shortcuts={"stream": False, "values": True}),
    "value residual, no value embeddings": _network(
        shortcuts={"stream": False, "values": True}, tables={"value_layers": 0}
    ),
    "embedding added before each block": _network(shortcuts={"stream": True, "values": False}),
    # what helps, together
    "cap 15, trigrams": _network(logit_cap=15.0, tables={"ngram_rows": [16384, 65536]}),
    "cap 15, trigrams, embedding before blocks": _network(
        logit_cap=15.0,
        tables={"ngram_rows": [16384, 65536]},
        shortcuts={"stream": True, "values": False},
    ),
}
"""Changes of the base, by dotted names of the config."""
