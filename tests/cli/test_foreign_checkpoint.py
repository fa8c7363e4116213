"""A foreign checkpoint in a run: no command imports what it names, or writes elsewhere."""

import sys

import pytest

from pile_lightning import CausalLM, DecoderConfig
from pile_lightning.checkpoint import write_checkpoint

NAMED = {"class_path": "payload_of_a_checkpoint.X", "init_args": {}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the command is run, with a module that shows when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "payload_of_a_checkpoint.py").write_text("open('ran', 'w').close()\n")
    return tmp_path


def plain(**more):
    model = CausalLM(DecoderConfig(d_model=16, num_layers=1), vocab_size=256, max_seq_len=32)
    return dict(model.hparams) | more


def make_run(folder, settings, *, kind="CausalLM", **more):
    state = {"epoch": 0, "global_step": 1, "state_dict": {}, "hyper_parameters": settings, **more}
    write_checkpoint(state, folder / "run/checkpoints/last.ckpt")
    model = f"{{class_path: pile_lightning.{kind}, init_args: {{}}}}"
    (folder / "run/config.yaml").write_text(f"model: {model}\ntrainer: {{max_steps: 1}}\n")


def make_environment(folder, name="a", **more):
    member = {"class_path": "pile_lightning.CausalLM", "init_args": plain(), "seed": None}
    member |= {"gradient_clip_val": None, "weights": None, "frozen": False, "swept": {}}
    fate = {"stopped_step": None, "scored_step": None, "loss": 1.0, "bits_per_byte": 1.0}
    names = ("base", "sweep", "coupling", "halving")
    settings = dict.fromkeys(names) | {"vocab_size": 256, "max_seq_len": 32, "share": []}
    settings |= {"engine": "sequential", "members": {name: member | more}}
    state = {"members": {name: {"fate": fate}}, "num_groups": {}, "left_out": {}}
    make_run(folder, settings, kind="Environment", environment=state)
    (folder / "run/metrics.csv").write_text(
        f"step,val/{name}/bits_per_byte,throughput/tokens\n1,2.0,100\n"
    )


def refused(command_line, *words, cwd):
    said = command_line("pile", *words, cwd=cwd, fails=True).stderr
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not (cwd / "ran").exists()
    assert "payload_of_a_checkpoint" not in sys.modules
    return said


COMMANDS = {
    "scaling": ("scaling", "run"),
    "transfer": ("transfer", "run", "--d_model", "64"),
    "members": ("members", "run"),
    "generate": ("generate", "run"),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("place", ["class", "config", "text"])
def test_what_a_member_is_made_of_is_not_imported(command_line, folder, words, place):
    more = {
        "class": NAMED,
        "config": {"init_args": plain(network=NAMED)},
        "text": {"init_args": plain(network=NAMED["class_path"])},
    }
    make_environment(folder, **more[place])
    said = refused(command_line, *words, cwd=folder)
    assert "payload_of_a_checkpoint" in said


@pytest.mark.parametrize(
    "more", [{}, {"_instantiator": "lightning.pytorch.cli.instantiate_module"}]
)
def test_what_a_model_is_made_of_is_not_imported(command_line, folder, more):
    make_run(folder, plain(network=NAMED, **more))
    assert "is not imported" in refused(command_line, "generate", "run", cwd=folder)


@pytest.mark.parametrize("network", [NAMED, NAMED["class_path"], {"class_path": "os.system"}])
def test_weights_import_nothing(command_line, folder, network):
    make_run(folder, plain(network=network))
    (folder / "mine.yaml").write_text(
        "model:\n  class_path: pile_lightning.Environment\n  init_args:\n    members:\n"
        "      teacher: {class_path: CausalLM, weights: run, frozen: true}\n"
        "      mine: {class_path: CausalLM}\n"
    )
    refused(command_line, "plan", "--config", "mine.yaml", cwd=folder)


@pytest.mark.parametrize("name", ["../../../outside", "/tmp/outside", "..", "a/b"])
def test_no_member_is_written_outside_of_the_run(command_line, folder, name):
    make_environment(folder, name)
    before = sorted(folder.rglob("*"))
    said = refused(command_line, "members", "run", cwd=folder)
    assert "a member is called" in said
    assert sorted(folder.rglob("*")) == before


def test_members_of_a_good_checkpoint_are_written(command_line, folder):
    make_environment(folder)
    command_line("pile", "members", "run", cwd=folder)
    assert (folder / "run/members/a/checkpoints/last.ckpt").is_file()


@pytest.mark.parametrize("config", ["", "- a\n", "model: {\n", "model: !!python/name:os.system\n"])
def test_a_config_that_is_none_is_one_line(command_line, folder, config):
    make_environment(folder)
    (folder / "run/config.yaml").write_text(config)
    for words in COMMANDS.values():
        assert "config.yaml" in refused(command_line, *words, cwd=folder)
