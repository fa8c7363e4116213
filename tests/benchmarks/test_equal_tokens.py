"""At equal tokens and parameters: grids grow to an inner best, and what was run is found again."""

import json
import math
import os
import re
import sys
from collections import Counter

import pytest

from pile_lightning import TextData
from pile_lightning.cli.plan import plan_parser
from pile_lightning.cli.plan_run import make_run
from tests.benchmarks import equal_tokens
from tests.benchmarks.quality.changes import write_config
from tests.benchmarks.quality.entrants import OURS, Entrant, Scale, our_entrant, peer_entrant
from tests.benchmarks.quality.grid import Grid
from tests.benchmarks.quality.lit_gpt import LitGpt
from tests.benchmarks.quality.others import find_others
from tests.benchmarks.quality.peer import lacks
from tests.benchmarks.quality.processes import RunFailedError
from tests.benchmarks.quality.records import Records
from tests.benchmarks.quality.runs import Runs
from tests.benchmarks.quality.trained import Scored, Trained

PEERS_PYTHON = os.environ.get("PEERS_PYTHON", sys.executable)


class Valley:
    """A system whose score has its best at a learning rate."""

    system = "valley"

    def __init__(self, rate, batch_size, asked, *, best=0.004, fails=()):
        self.rate, self.asked, self.best, self.fails = rate, asked, best, fails
        self.settings, self.tokens_a_step = f"rate={rate} batch={batch_size}", 10 * batch_size

    def train(self, steps, folder):
        self.asked.append((self.rate, steps))
        if self.rate in self.fails:
            raise RunFailedError("diverged")
        folder.mkdir()
        return Trained(1.0, 0.1, steps)

    def score(self, folder):
        return Scored(2 + math.log2(self.rate / self.best) ** 2, parameters=3_000, looked_up=1_000)


def make_grid(tmp_path, asked, *, rates=(0.001, 0.002), batch_sizes=(8,), grow=9, **valley):
    entrant = Entrant(
        name="valley", rates=rates, make=lambda rate, size: Valley(rate, size, asked, **valley)
    )
    runs = Runs(Records(tmp_path / "found.jsonl"), tmp_path, {"text": "t"})
    return Grid(runs, [entrant], batch_sizes=batch_sizes, tokens=800, grow=grow)


def test_a_grid_grows_until_its_best_is_inside_and_is_found_again(tmp_path):
    asked = []
    grid = make_grid(tmp_path, asked)
    grid.run_all(at_once=1)
    assert [rate for rate, _ in asked] == [0.001, 0.002, 0.004, 0.008]
    (line,) = equal_tokens.lines(grid)
    assert (line.cell.rate, line.found["bits_per_byte"], line.at_edge) == (0.004, 2.0, False)
    again = make_grid(tmp_path, asked)
    again.run_all(at_once=1)
    assert len(asked) == 4
    assert equal_tokens.table(again) == equal_tokens.table(grid)


def test_a_grid_grows_downwards_and_no_further_than_it_may(tmp_path):
    asked = []
    grid = make_grid(tmp_path, asked, rates=(0.064, 0.016, 0.032), grow=1)
    grid.run_all(at_once=1)
    assert [rate for rate, _ in asked] == [0.032, 0.016, 0.064, 0.008]  # the middle first
    assert equal_tokens.lines(grid)[0].at_edge
    assert "At the edge of the rates that were tried: valley." in equal_tokens.table(grid)


def test_a_table_says_what_it_still_lacks(tmp_path):
    make_grid(tmp_path, [], rates=(0.004,)).run_all(at_once=1)
    grid = make_grid(tmp_path, [], rates=(0.002, 0.004, 0.008))
    assert "0.004: 2.0000 | 2.0000 |" in equal_tokens.table(grid)
    assert "Runs that are still to be done: 2." in equal_tokens.table(grid)
    grid.run_all(at_once=1)
    assert "still" not in equal_tokens.table(grid)


def test_every_batch_takes_the_same_tokens(tmp_path):
    asked = []
    grid = make_grid(tmp_path, asked, rates=(0.002, 0.004, 0.008), batch_sizes=(4, 8))
    grid.run_all(at_once=2)
    assert Counter(steps for _, steps in asked) == {20: 3, 10: 3}
    assert equal_tokens.lines(grid)[0].found["tokens"] == 800
    assert "0.004 x 4: 2.0000, 0.004 x 8: 2.0000" in equal_tokens.table(grid)


def test_a_run_that_fails_is_told_counts_as_worst_and_is_tried_again_later(tmp_path, capsys):
    asked = []
    settings = {"rates": (0.002, 0.004, 0.008)}
    grid = make_grid(tmp_path, asked, **settings, fails=(0.008,))
    grid.run_all(at_once=1)
    assert "valley, rate 0.008, batch 8: failed\ndiverged" in capsys.readouterr().out
    assert "0.004: 2.0000, 0.008: inf | 2.0000 |" in equal_tokens.table(grid)
    make_grid(tmp_path, asked, **settings).run_all(at_once=1)
    assert [rate for rate, _ in asked] == [0.004, 0.002, 0.008, 0.008]


def test_ours_without_tables_and_narrower_with_one_have_as_many_parameters(tmp_path, corpus):
    parser, total, looked_up = plan_parser(), {}, {}
    for name in OURS:
        entrant = our_entrant(
            name,
            config="configs/ten_minutes.yaml",
            changes={"data.init_args.sources": str(corpus), "data.init_args.tokenizer": "byte"},
            scale=Scale(d_model=64, num_layers=2, seq_len=32),
            vocab_size=257,
            rates=[0.02],
            shared={"data": None, "environment": {}, "timeout": 1},
        )
        candidate = entrant.make(0.02, 4)
        assert candidate.system == OURS[name]
        assert candidate.tokens_a_step == 4 * 32
        config = write_config(candidate.config, tmp_path / "config.yaml")
        model = make_run(parser, parser.parse_args(["--config", str(config)])).make_module()
        assert model.optimizer_config.lr == 0.02
        model.configure_model()
        total[name] = sum(each.numel() for each in model.parameters())
        looked_up[name] = total[name] - sum(
            each.numel() for each in model.network.blocks.parameters()
        )
    with_tables, without, narrower = (total[name] for name in OURS)
    assert with_tables > 1.5 * without
    assert narrower == pytest.approx(without, rel=0.01)
    assert looked_up["narrower"] > looked_up["no_tables"]


def test_what_litgpt_is_given_takes_the_tokens_that_are_asked_for(tmp_path):
    scale = Scale(d_model=192, num_layers=2, seq_len=32)
    shared = {"data": TextData("stdlib", tokenizer="byte"), "tokens": tmp_path, "timeout": 1}

    def maker(settings):
        return LitGpt(settings=settings, python=sys.executable, environment={}, **shared)

    entrant = peer_entrant("litgpt", maker, scale=scale, rates=[0.002])
    candidate = entrant.make(0.004, 4)
    config = candidate.config(steps=50)
    assert entrant.name == "litgpt"
    assert config["train"]["max_tokens"] == 50 * candidate.tokens_a_step == 50 * 4 * 32
    assert config["train"]["min_lr"] == config["optimizer"]["init_args"]["lr"] / 10 == 0.0004
    model = config["model_config"]
    assert (model["n_embd"], model["n_head"], model["n_layer"]) == (192, 3, 2)
    with pytest.raises(ValueError, match="'width' is no setting; there are d_model"):
        maker("width=3")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--steps=0"], "--steps 0: give numbers above 0"),
        (["--litgpt_rates", "0.1", "-1"], r"--litgpt_rates \[0.1, -1.0\]: give numbers above 0"),
        (["--only", "mine"], "invalid choice: 'mine'"),
        (["--set", "data.x=byte"], "'data.x=byte' is not a dotted name, '=' and JSON; write text"),
    ],
)
def test_bad_arguments_are_told(arguments, told, capsys):
    with pytest.raises(SystemExit):
        equal_tokens.main(arguments)
    error = capsys.readouterr().err
    assert re.search(told, error)


def tiny(tmp_path, corpus, *more):
    settings = {"data.init_args.sources": str(corpus), "data.init_args.tokenizer": "byte"}
    settings |= {"samples.max_new_tokens": 1}
    changes = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    size = ["--d_model=32", "--num_layers=1", "--seq_len=32", "--val_batches=2", "--eager"]
    out = f"--out={tmp_path}/found.jsonl"
    return [*more, "--steps=4", "--grow=0", *size, out, "--set", *changes]


@pytest.mark.slow
def test_ours_is_run_and_found_again(tmp_path, corpus, cache, monkeypatch, capsys):
    monkeypatch.setenv("PILE_CACHE", str(cache))
    shown, arguments = [], tiny(tmp_path, corpus, "--only", *OURS, "--ours_rates", "0.03")
    equal_tokens.main([*arguments, "--jobs=2"], show=shown.append)
    assert "3 runs to do" in capsys.readouterr().out
    equal_tokens.main([*arguments, "--table"], show=shown.append)
    assert shown[:2] == shown[2:]
    assert shown[1].count("| ours") == 3


@pytest.mark.slow
def test_the_peers_that_are_here_have_as_many_parameters(tmp_path, corpus, cache, monkeypatch):
    modules = {"litgpt": "litgpt.pretrain", "hugging_face": "accelerate"}
    here = [name for name, module in modules.items() if lacks(PEERS_PYTHON, module) is None]
    here += ["nanogpt"] if "NANOGPT" in os.environ else []
    if not here:
        pytest.skip("no peer is here; PEERS_PYTHON names a Python that has them, NANOGPT a folder")
    monkeypatch.setenv("PILE_CACHE", str(cache))
    rates = [f"--{name}_rates=0.01" for name in ("ours", *here)]
    where = [f"--peers_python={PEERS_PYTHON}", f"--nanogpt={os.environ.get('NANOGPT')}"]
    arguments = tiny(tmp_path, corpus, "--only", "no_tables", *here, *rates, *where)
    shown = []
    equal_tokens.main(arguments, show=shown.append)
    records = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    found = {each["key"]["system"]: each["found"] for each in records}
    assert len(found) == 1 + len(here)
    assert {each["tokens"] for each in found.values()} == {4 * 8 * 32}
    own = found.pop("ours, no tables")
    for system, each in found.items():
        assert each["bits_per_byte"] < 8.5, system  # what 257 ids that are alike take, and some
        # 64 times a whole number is as near as a gated network of this width comes
        assert each["parameters"] == pytest.approx(own["parameters"], rel=0.25), system


def test_a_peer_that_is_missing_is_told(tmp_path, corpus, cache, capsys):
    data = TextData(str(corpus), tokenizer="byte", val_fraction=0.2, cache_dir=str(cache))
    data.prepare_data()
    python = str(tmp_path / "nothing")
    assert not find_others(["litgpt"], nanogpt=None, data=data, scratch=tmp_path, python=python)
    assert "litgpt is missing: there is no " in capsys.readouterr().out
