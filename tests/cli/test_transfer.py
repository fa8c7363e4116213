"""``pile transfer`` reads what a sweep left, and writes what a large run starts from."""

import json
import re
import shutil

import pytest
import yaml

from pile_lightning.cli.larger import find_larger
from pile_lightning.modules.environment.specs import member_specs
from pile_lightning.optim import parameter_roles
from tests.cli.environments import init_args, rewrite, sweep_of, tiny_run
from tests.conftest import REPOSITORY

ADAMW = {"class_path": "pile_lightning.optim.AdamWConfig", "init_args": {"lr": 0.01}}
SWEEP = {
    "optimizer.lr": [0.001, 0.004, 0.016],
    "network.d_model": [16],
    "network.num_layers": [1],
    "network.attention.num_heads": [2],
    "gradient_clip_val": [1.0],
    "seed": [0, 1],
}
SCORES = {  # the third is the luckiest, the second the best
    "lr=0.001,seed=0": 4.0,
    "lr=0.001,seed=1": 4.2,
    "lr=0.004,seed=0": 3.5,
    "lr=0.004,seed=1": 3.6,
    "lr=0.016,seed=0": 3.4,
    "lr=0.016,seed=1": 3.9,
    "one": 5.0,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, command_line, corpus):
    """A finished sweep of two steps, and a member beside it."""
    folder = tmp_path_factory.mktemp("swept")
    base = {"class_path": "pile_lightning.CausalLM", "init_args": init_args(16, optimizer=ADAMW)}
    one = {"class_path": "pile_lightning.CausalLM", "init_args": init_args(32)}
    command_line(
        "fit",
        *tiny_run(corpus),
        *sweep_of(**SWEEP),
        f"--model.base={json.dumps(base)}",
        f"--model.members={json.dumps({'one': one})}",
        "--trainer.max_steps=2",
        "--trainer.val_check_interval=2",
        cwd=folder,
    )
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it with the scores above."""
    copied = shutil.copytree(trained, tmp_path / "run")
    score(copied, SCORES)
    return copied


def score(run, scores):
    columns = {f"val/{name}/bits_per_byte": value for name, value in scores.items()}
    rewrite(run, lambda row: row | {name: columns[name] for name in columns if name in row})


def written(run, name="transferred.yaml"):
    return yaml.safe_load((run.parent / name).read_text())


def groups_of(content):
    """Return learning rate and decay by role, as a run of a config would have them."""
    [spec] = member_specs({"it": content["model"]}, None, None).values()
    model = spec.build(vocab_size=257, max_seq_len=64)
    network = model.built_network
    roles = parameter_roles(network)._asdict()
    groups = model.optimizer_config.build(network).param_groups
    return {
        role: (group["lr"], group["lr"] * group["weight_decay"])
        for role, parameters in roles.items()
        for group in groups
        if parameters and any(p is parameters[0] for p in group["params"])
    }


def transfer(run, command_line, *arguments):
    done = command_line("pile", "transfer", "run", *arguments, cwd=run.parent)
    return re.sub(r"\n(?=\w)", " ", done.stdout)  # sentences as they were before they were broken


def test_rates_follow_the_width_and_the_config_trains(run, command_line):
    said = transfer(run, command_line, "--d_model=64")
    content = written(run)
    network = content["model"]["init_args"]["network"]["init_args"]
    assert (network["d_model"], network["num_layers"]) == (64, 1)
    assert network["attention"]["init_args"]["num_heads"] == 8
    assert content["trainer"]["gradient_clip_val"] == 1.0
    member = run / "members/lr=0.004,seed=0/config.yaml"
    narrow, wide = groups_of(yaml.safe_load(member.read_text())), groups_of(content)
    assert narrow["matrices"][0] == 0.004
    for role in ("matrices", "tables"):
        assert wide[role][0] == pytest.approx(narrow[role][0] / 4)
    assert wide["vectors"] == narrow["vectors"]
    for role in narrow:  # a step decays as much as before
        assert wide[role][1] == pytest.approx(narrow[role][1])
    assert re.search(r"learning rate, matrices +0.004 +0.001 +0.25\n", said)
    done = command_line("fit", "--config=transferred.yaml", cwd=run.parent).stdout
    assert "this model, step 2" in done
    assert (run.parent / "run-width64/checkpoints/last.ckpt").is_file()
    assert (run / "members").is_dir()  # where the sweep was


def test_to_the_same_width_the_setting_is_the_same(run, command_line):
    transfer(run, command_line, "--d_model=16")
    member = yaml.safe_load((run / "members/lr=0.004,seed=0/config.yaml").read_text())
    assert written(run)["model"] == member["model"]


def test_the_best_mean_over_seeds_is_carried_and_an_end_of_the_grid_is_named(run, command_line):
    said = transfer(run, command_line, "--d_model=32")
    assert "The best of 4 settings" in said
    assert "3.5500 held-out bits per byte at step 2, the mean of 2 seeds 0.1000 apart" in said
    assert "The next is lr=0.016,seed=0, 0.1000 behind." in said
    assert (
        "Replaced, going with the size: network.d_model=16, network.attention.num_heads=2." in said
    )
    assert re.search(r"\n  network.num_layers +1 +1\n", said)  # not the width's to say
    assert "try more beyond" not in said
    assert "seed" not in written(run)["model"]
    score(run, {"lr=0.016,seed=1": 3.5})
    said = transfer(run, command_line, "--d_model=32", "--overwrite=true")
    [line] = [line for line in said.splitlines() if line.startswith("  optimizer.lr ")]
    assert line.split()[1:5] == ["0.016", "0.001,", "0.004,", "0.016"]
    assert line.endswith("the highest: try more beyond")
    assert written(run)["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.016


@pytest.mark.slow
def test_a_member_without_a_sweep_may_be_the_best_or_be_named(run, command_line):
    score(run, {"one": 3.0})
    said = transfer(run, command_line, "--d_model=64")
    assert "settings that trained to the end, one: 3.0000" in said
    assert "all settings of one, of which none was swept" in said
    assert written(run)["model"]["init_args"]["optimizer"]["class_path"].endswith("MuonConfig")
    arguments = ("--d_model=64", "--member=lr=0.001,seed=1", "--output=other.yaml")
    said = transfer(run, command_line, *arguments)
    assert "Number 4 of 4 settings" in said
    optimizer = written(run, "other.yaml")["model"]["init_args"]["optimizer"]["init_args"]
    assert (optimizer["lr"], optimizer["base_width"]) == (0.001, 16)


def test_of_configs_all_but_the_model_is_taken_and_arguments_win():
    paths = [str(REPOSITORY / f"configs/sizes/{name}.yaml") for name in ("d4", "d8")]
    nothing = {"size": None, "d_model": None, "num_layers": None}
    found = find_larger(**nothing, configs=paths)
    assert (found.size, found.label) == ("d8", "d8")
    on_top = yaml.safe_load((REPOSITORY / "configs/sizes/d8.yaml").read_text())
    assert found.on_top == {"data": on_top["data"], "trainer": on_top["trainer"]}
    assert found.not_taken == {path: ["optimizer"] for path in paths}
    found = find_larger(**nothing | {"d_model": 96, "num_layers": 5}, configs=paths)
    assert (found.size, found.d_model, found.label) == (None, 96, "width96x5")
    with pytest.raises(ValueError, match="size='d8' says how many layers .* num_layers=5 too"):
        find_larger(**nothing | {"num_layers": 5}, configs=paths)


@pytest.mark.slow
def test_a_config_on_top_gives_size_text_batch_and_steps_and_no_optimizer(run, command_line):
    size = REPOSITORY / "configs/sizes/d4.yaml"
    said = transfer(run, command_line, f"--config={size}")
    content, on_top = written(run), yaml.safe_load(size.read_text())
    assert content["model"]["init_args"]["network"]["init_args"]["size"] == "d4"
    assert content["model"]["init_args"]["optimizer"]["init_args"]["base_width"] == 16
    assert content["trainer"]["max_steps"] == on_top["trainer"]["max_steps"]
    for name, value in on_top["data"]["init_args"].items():
        assert content["data"]["init_args"][name] == value
    assert content["data"]["init_args"]["tokenizer"] == "byte"
    assert "the model's optimizer is not taken" in said
    assert "best for other layers, features of a head, steps, tokens of a step" in said


def unfinish(run):
    path = run / "config.yaml"
    content = yaml.safe_load(path.read_text())
    content["trainer"]["max_steps"] = 9
    path.write_text(yaml.safe_dump(content))


def unscore(run):
    rewrite(run, lambda row: {k: v for k, v in row.items() if not k.startswith("val/")})


def diverge(run):
    score(run, dict.fromkeys(SCORES, float("nan")))


def keep(run):
    (run.parent / "transferred.yaml").write_text("mine")


def misspell(run):
    (run.parent / "more.yaml").write_text("trainer: {max_stepz: 3}")


WIDE = ["run", "--d_model=64"]
MISTAKES = {
    "no run": (["nowhere", "--d_model=64"], None, "nowhere is not the folder of a run"),
    "one model": (
        ["run/members/one", "--d_model=64"],
        None,
        "is a run of one model, and there is no best among several",
    ),
    "not finished": (WIDE, unfinish, "has come to step 2 of 9.*--ckpt_path last"),
    "not scored": (WIDE, unscore, "no member of run has a held-out score"),
    "diverged": (WIDE, diverge, "no member of run trained to the end with a finite score"),
    "no size": (["run"], None, "give one of them: --size d12"),
    "two sizes": ([*WIDE, "--size=d4"], None, "size=d4 and d_model=64 do not say"),
    "narrower": (["run", "--d_model=8"], None, "width 8 is narrower than the 16"),
    "an unknown field": (["run", "--d_modle=64"], None, "did you mean 'd_model'"),
    "a config's unknown field": ([*WIDE, "--config=more.yaml"], misspell, "max_stepz"),
    "no such config": ([*WIDE, "--config=none.yaml"], None, "there is no config none.yaml"),
    "no such member": ([*WIDE, "--member=lr=1"], None, "such as lr=0.004,seed=0"),
    "a file that is there": (WIDE, keep, "exists; name another file by --output, or add"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_clear_message_and_writes_nothing(mistake, run, command_line):
    arguments, prepare, message = MISTAKES[mistake]
    if prepare is not None:
        prepare(run)
    target = run.parent / "transferred.yaml"
    before = target.read_text() if target.exists() else None
    failed = command_line("pile", "transfer", *arguments, cwd=run.parent, fails=True)
    errors = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert re.search(message, errors[0])
    assert (target.read_text() if target.exists() else None) == before
