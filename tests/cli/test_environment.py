"""Environments from the command line, as a new user runs them."""

import pytest
import torch
import yaml

from pile_lightning import CausalLM
from pile_lightning.callbacks import read_metrics
from tests.cli.environments import sweep_of, tiny_run
from tests.conftest import REPOSITORY

CONFIGS = [
    # one that has it all is enough for every day
    pytest.param(path, marks=[] if path.stem == "distillation" else pytest.mark.slow, id=path.stem)
    for path in sorted((REPOSITORY / "configs/environment").glob("*.yaml"))
]


@pytest.fixture(scope="module")
def tiny(corpus):
    """Arguments that make any run of an environment one of seconds."""
    return tiny_run(corpus)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_takes_two_steps(config, tiny, tmp_path, command_line, small):
    if config.stem == "teacher":
        run = [
            *small,
            *tiny,
            "--trainer.max_steps=2",
            "--trainer.default_root_dir=runs/ten_minutes",
        ]
        command_line("fit", *run, cwd=tmp_path)
    done = command_line(
        "fit",
        f"--config={config}",
        *tiny,
        "--trainer.max_steps=2",
        "--trainer.val_check_interval=2",
        cwd=tmp_path,
    )
    content = yaml.safe_load(config.read_text())
    assert content["trainer"]["default_root_dir"] == f"runs/{config.stem}"
    assert "the best member, step 2" in done.stdout
    settings = content["model"]["init_args"]
    swept = {"sweep": ["lr=0.01,d_model=64", "lr=0.1,d_model=96"], "sizes": ["d_model=192"]}
    names = settings.get("members") or swept[config.stem]
    for name in names:
        assert f" {name} " in done.stdout.split("The members.")[1]
    assert ("the ensemble, step 2" in done.stdout) == (config.stem == "distillation")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, command_line, tiny):
    """A finished sweep of eight steps: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("swept")
    arguments = sweep_of(**{"optimizer.lr": [0.0, 0.02], "seed": [1, 2]})
    done = command_line(
        "fit",
        *tiny,
        *arguments,
        '--model.halving={"at": [4], "keep": 0.75}',
        "--trainer.max_steps=8",
        "--trainer.val_check_interval=4",
        cwd=folder,
    )
    return folder, done


def test_a_run_ranks_its_members_and_leaves_each_as_a_run(trained, command_line):
    folder, done = trained
    run = folder / "run"
    ranked = [line.split() for line in done.stdout.split("The members.")[1].splitlines()[3:7]]
    assert [place for place, *_ in ranked] == ["1", "2", "3", "4"]
    scores = [float(row[2]) for row in ranked]
    assert scores == sorted(scores)
    assert ranked[-1][-1] == "4"  # trained to step 4
    best = ranked[0][1]
    assert best.startswith("lr=0.02,seed=")
    assert f"pile generate run/members/{best}" in done.stdout
    assert (run / "curves.png").stat().st_size > 10_000
    assert (run / "sweep.png").stat().st_size > 10_000
    assert "sweep.png       loss over what was swept" in done.stdout
    # a line of the one field: the seed is none
    optima = done.stdout.split("Where the loss is lowest.")[1].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in optima[1:]] == ["field", "lr", "Of"]
    assert optima[2].endswith("try more beyond")
    rows = read_metrics(run / "metrics.csv")
    logged = set().union(*rows)
    for name in ("lr=0.02,seed=1", "lr=0.0,seed=2"):
        assert {f"train/{name}/loss", f"train/{name}/lr", f"val/{name}/bits_per_byte"} <= logged
    assert {"train/loss", "val/bits_per_byte", "throughput/tflops"} <= logged
    assert [row["train/members"] for row in rows if "train/members" in row] == [4, 4, 3, 3]

    own = run / "members" / best
    model = CausalLM.load_from_checkpoint(own / "checkpoints/last.ckpt")
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, value in model.state_dict().items():
        assert torch.equal(state[f"members.{best.replace('.', '_')}.{name}"], value)
    for place in (str(own.relative_to(folder)), "run"):
        generate = ["generate", place, "--prompt=def ", "--max_new_tokens=9", "--checkpoint=last"]
        said = command_line("pile", *generate, cwd=folder).stdout
        assert said.startswith("def ")
    config = yaml.safe_load((own / "config.yaml").read_text())
    assert config["seed_everything"] == int(best[-1])
    validate = ["validate", f"--config={own}/config.yaml", "--ckpt_path=last"]
    assert "val/bits_per_byte" in command_line(*validate, cwd=folder).stdout


def test_a_member_is_the_model_of_a_run_of_its_own(trained, tiny, tmp_path, command_line):
    folder, _ = trained
    settings = [
        "--model.network.d_model=32",
        "--model.network.num_layers=1",
        "--model.optimizer.lr=0.02",
        "--seed_everything=2",
        "--trainer.max_steps=8",
        "--trainer.val_check_interval=4",
    ]
    command_line("fit", *tiny, *settings, cwd=tmp_path)
    alone = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    path = folder / "run/members/lr=0.02,seed=2/checkpoints/last.ckpt"
    member = torch.load(path, weights_only=True)
    assert alone.keys() == member.keys()
    assert alone["hyper_parameters"] == member["hyper_parameters"]
    assert alone["lr_schedulers"] == member["lr_schedulers"]
    torch.testing.assert_close(alone["state_dict"], member["state_dict"], rtol=0, atol=0)
    (one,), (two,) = alone["optimizer_states"], member["optimizer_states"]
    assert one["param_groups"] == two["param_groups"]
    torch.testing.assert_close(one["state"], two["state"], rtol=0, atol=0)


def test_members_of_any_checkpoint_are_written_on_demand(trained, command_line):
    folder, _ = trained
    told = command_line("pile", "members", "run", "--checkpoint=best", cwd=folder).stdout
    own = folder / "run/members/lr=0.02,seed=1"
    assert "run/members/lr=0.02,seed=1" in told
    assert (own / "checkpoints/best.ckpt").is_file()
    again = ["pile", "members", "run/members/lr=0.02,seed=1"]
    assert "is not of an environment" in command_line(*again, cwd=folder, fails=True).stderr


def test_the_whole_is_scored_and_predicts(trained, command_line):
    folder, _ = trained
    done = command_line("validate", "--config=run/config.yaml", "--ckpt_path=last", cwd=folder)
    assert "val/lr=0.0,seed=1/bits_per" in done.stdout
    command_line("predict", "--config=run/config.yaml", "--ckpt_path=last", cwd=folder)
    assert (folder / "run/predictions.jsonl").is_file()


TWICE = """
model:
  class_path: pile_lightning.Environment
  init_args:
    members:
      one: {class_path: pile_lightning.CausalLM}
      one: {class_path: pile_lightning.CausalLM}
"""

MISTAKES = {
    "two members of one name": (["--config=twice.yaml"], "'one' stands twice, in lines 6 and 7"),
    "a swept field that is none": (
        sweep_of(**{"optimizer.lrr": [1, 2]}),
        "sweep: 'lrr' is not a setting here; did you mean 'lr'?",
    ),
    "a coupling of nobody": (
        [
            *sweep_of(seed=[1, 2]),
            '--model.coupling=[{"class_path": "pile_lightning.Ensemble", '
            '"init_args": {"members": ["seed=3"]}}]',
        ],
        "coupling Ensemble names 'seed=3', and there is no such member; did you mean 'seed=",
    ),
    "another vocabulary": (
        [
            "--model=pile_lightning.Environment",
            '--model.members={"a": {"class_path": "CausalLM", "init_args": {"vocab_size": 3}}}',
        ],
        "vocab_size=3, and the one stream that all members read has 257",
    ),
    "a setting that is none": (
        [*sweep_of(seed=[1]), "--model.sweeep=1"],
        "did you mean 'sweep'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_clear_message(mistake, tiny, tmp_path, command_line):
    (tmp_path / "twice.yaml").write_text(TWICE)
    arguments, message = MISTAKES[mistake]
    done = command_line("fit", *tiny, *arguments, cwd=tmp_path, fails=True)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr
