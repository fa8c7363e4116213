"""A class named in the place of a default has its own defaults, and what the user has set."""

import pytest

from pile_lightning.modules import CausalLM
from pile_lightning.modules.environment.parse import parse_settings
from pile_lightning.nn import PileConfig
from pile_lightning.optim import AdamWConfig, CosineConfig, MuonConfig

OPTIM = "pile_lightning.optim."


@pytest.mark.parametrize("arguments", [[], ["--model.optimizer=MuonConfig"]])
def test_the_command_line_hands_no_default_on(arguments, command_line, tmp_path):
    arguments += [f"--model.optimizer={OPTIM}AdamWConfig", f"--model.schedule={OPTIM}CosineConfig"]
    said = command_line("fit", *arguments, "--print_config", cwd=tmp_path).stdout
    for name, value in {"lr": 0.001, "eps": "1.0e-08", "weight_decay": 0.1, "floor": 0.1}.items():
        assert f" {name}: {value}\n" in said


def test_what_was_set_goes_along(command_line, tmp_path):
    set_before = [f"--model.optimizer={OPTIM}MuonConfig", "--model.optimizer.lr=0.5"]
    then = f"--model.optimizer={OPTIM}AdamWConfig"
    said = command_line("fit", *set_before, then, "--print_config", cwd=tmp_path).stdout
    assert " lr: 0.5\n" in said
    assert " weight_decay: 0.1\n" in said


@pytest.mark.parametrize(
    ("field", "config"),
    [
        ("optimizer", AdamWConfig()),
        ("schedule", CosineConfig()),
        ("network", PileConfig()),
        ("optimizer", MuonConfig()),
    ],
)
def test_a_member_has_its_class_own_defaults(field, config):
    kind = type(config)
    named = {"class_path": f"{kind.__module__}.{kind.__qualname__}"}
    assert parse_settings(CausalLM, {field: named}, {}, of="a")[field] == config
    swept = parse_settings(CausalLM, {}, {field: named["class_path"]}, of="a")
    assert swept[field] == config
