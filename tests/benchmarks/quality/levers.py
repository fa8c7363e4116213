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


def _muon(**fields: Any) -> dict[str, Any]:
    return {f"{MODEL}.optimizer.init_args.{name}": value for name, value in fields.items()}


_NO_TABLES = _network(tables=None)

ROWS: dict[str, dict[str, Any]] = {
    "base": {},
    # what steps the weights
    "Muon's momentum 0.95": _muon(momentum=0.95),
    "Muon's momentum 0.6": _muon(momentum=0.6),
    "AdamW's betas 0.9, 0.95 for tables": _muon(betas=[0.9, 0.95]),
    "AdamW's betas 0.9, 0.99 for tables": _muon(betas=[0.9, 0.99]),
    "momentum 0.95, betas 0.9, 0.95": _muon(momentum=0.95, betas=[0.9, 0.95]),
    "Muon, lr 0.02": _muon(lr=0.02),
    "Muon, lr 0.045": _muon(lr=0.045),
    "look-ups, lr 0.1": _muon(lookup_lr=0.1),
    "vectors, lr 0.01": _muon(vector_lr=0.01),
    "vectors, lr 0.05": _muon(vector_lr=0.05),
    "AdamW, lr 0.004": _adamw(0.004),
    "AdamW, lr 0.004, no tables": _adamw(0.004) | _NO_TABLES,
    "AdamW, lr 0.004, rates of tables their own": _adamw(0.004, table_lr=0.03, lookup_lr=0.3),
    # the learning rate over the run
    "warm-up, stable, decay 0.2": _schedule("WarmupStableDecayConfig", decay=0.2),
    "warm-up, stable, decay 0.5": _schedule("WarmupStableDecayConfig", decay=0.5),
    "cosine to 0": _schedule("CosineConfig", floor=0.0),
    "cosine to 0.1": _schedule("CosineConfig", floor=0.1),
    "linear to 0.1": _schedule("LinearConfig", floor=0.1),
    "twice the batch": {"data.init_args.batch_size": 2},
    "rows of 1,024 from the start": {"data.init_args.short_rows": None},
    "rows of 128 for the first half": {"data.init_args.short_rows.parts": 8},
    # the network
    "no QK-norm": _network(attention={"qk_norm": None}),
    "SwiGLU": _network(feed_forward={"activation": "silu", "gated": True, "d_ff": 352}),
    "output projections zero": _network(init={}),
    "untied head": _network(tie_embeddings=False),
    "3 layers": _network(num_layers=3),
    "width 192": _network(d_model=192),
    "4 heads": _network(attention={"num_heads": 4}),
    # what convolves
    "nothing convolved": _network(short_conv=None),
    "nothing convolved, vectors, lr 0.01": _network(short_conv=None) | _muon(vector_lr=0.01),
    "keys convolved over 4": _network(short_conv={"size": 4}),
    "values convolved, too": _network(short_conv={"values": True}),
    "queries and values convolved, too": _network(short_conv={"queries": True, "values": True}),
    "all convolved": _network(short_conv={"queries": True, "values": True, "inputs": True}),
    # the loss
    "z-loss 1e-4": {f"{MODEL}.z_loss": 1e-4},
    "z-loss 1e-3": {f"{MODEL}.z_loss": 1e-3},
    "logits capped at 15": _network(logit_cap=15.0),
    "logits capped at 30": _network(logit_cap=30.0),
    # beside the blocks
    "no tables": _NO_TABLES,
    "no smear": _network(tables={"smear": False}),
    "no table of pairs": _network(tables={"ngram_rows": []}),
    "table of pairs of 65536 rows": _network(tables={"ngram_rows": [65536]}),
    "table of triples of 65536 rows, too": _network(tables={"ngram_rows": [16384, 65536]}),
    "no value embeddings": _network(tables={"value_layers": 0}),
    "value embeddings in the last layer": _network(tables={"value_layers": 1}),
    "no matches": _network(matches=None),
    "matches of 3 tokens alone": _network(matches={"lengths": [3]}),
    "matches of 2 to 22 tokens": _network(matches={"lengths": [2, 3, 4, 6, 9, 14, 22]}),
    "value residual": _network(shortcuts={"stream": True, "values": True}),
    "embedding added at the start alone": _network(shortcuts=None),
}
"""Changes of the base, by dotted names of the config."""
