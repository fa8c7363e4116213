"""Which checkpoint a run goes on from, what a list says of them, and one file of a folder."""

import shutil
import time

import pytest
import torch

from pile_lightning import CausalLM
from pile_lightning.checkpoint import (
    AtomicCheckpointIO,
    read_summary,
    save_shards,
    write_checkpoint,
)
from pile_lightning.cli.runs import newest_checkpoint, resolve_checkpoint


@pytest.fixture(scope="module")
def arguments(small, corpus):
    return [
        "fit",
        *small,
        f"--data.sources={corpus}",
        "--trainer.val_check_interval=3",
        "--kept_checkpoints.every_n_steps=2",
        "--kept_checkpoints.keep=2",
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, command_line, arguments):
    """A finished run of six steps, with a history."""
    folder = tmp_path_factory.mktemp("checkpoints")
    command_line(*arguments, "--trainer.max_steps=6", "--checkpoints.background=true", cwd=folder)
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "run")


def shard(path):
    """Turn a checkpoint file into the folder that a sharded run leaves."""
    state = AtomicCheckpointIO().load_checkpoint(path)
    save_shards(state | {"summary": read_summary(path)}, path)
    return state


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_history_is_kept_beside_last_and_best(trained):
    names = sorted(path.name for path in (trained / "checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt", "step-00000004.ckpt", "step-00000006.ckpt"]


def test_the_list_shows_each_and_its_health(run, command_line, tmp_path):
    folder = run / "checkpoints"
    flip(folder / "best.ckpt")
    cut(folder / "step-00000004.ckpt")
    shard(folder / "last.ckpt")
    done = command_line("pile", "checkpoints", "run", cwd=tmp_path)
    rows = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    lines = {line.split()[0]: line for line in rows if line.split()[0].endswith(".ckpt")}
    # those whose step cannot be read come last
    assert list(lines) == ["best.ckpt", "last.ckpt", "step-00000006.ckpt", "step-00000004.ckpt"]
    for name, health in (("best", "damaged"), ("last", "good"), ("step-00000006", "good")):
        assert lines[f"{name}.ckpt"].endswith(health)
        assert " 6 " in lines[f"{name}.ckpt"]
    assert lines["step-00000004.ckpt"].endswith("damaged")
    assert "3.07 k" in lines["last.ckpt"]  # 6 steps of 8 rows of 64 tokens
    assert "at 3" not in lines["last.ckpt"]  # saved again when its own step was scored
    assert "best.ckpt is damaged" in done.stdout
    unchecked = command_line("pile", "checkpoints", "run", "--check=false", cwd=tmp_path).stdout
    assert unchecked.count("not checked") == 3


def test_the_newest_good_one_is_found(run):
    folder = run / "checkpoints"
    assert newest_checkpoint(run) == folder / "last.ckpt"  # saved last, with its scores
    flip(folder / "best.ckpt")
    shutil.rmtree(folder / "step-00000006.ckpt", ignore_errors=True)
    cut(folder / "step-00000006.ckpt")
    with pytest.warns(UserWarning, match=r"Going on from .*last.ckpt, .*step-00000006.ckpt .* cut"):
        assert newest_checkpoint(run) == folder / "last.ckpt"
    shard(folder / "last.ckpt")
    (folder / "last.ckpt").rename(folder / ".last.ckpt.old")  # a kill while it was replaced
    with pytest.warns(UserWarning, match=r"step-00000006.ckpt .* cut short"):
        assert newest_checkpoint(run) == folder / "last.ckpt"
    assert resolve_checkpoint("last", run) == str(folder / "last.ckpt")
    (folder / ".last.ckpt.old" / "COMPLETE").unlink()
    with pytest.warns(UserWarning, match=r"has no COMPLETE"):
        assert newest_checkpoint(run) == folder / "step-00000004.ckpt"
    cut(folder / "step-00000004.ckpt")
    with pytest.warns(UserWarning, match=r"Starting anew, passing over"):
        assert resolve_checkpoint("auto", run, may_be_fresh=True) is None
    with (
        pytest.warns(UserWarning, match="passing over"),
        pytest.raises(FileNotFoundError, match=r"no good checkpoint in .*run; train one"),
    ):
        resolve_checkpoint("auto", run)


def test_a_clock_that_is_set_back_makes_nothing_older(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    state = {"global_step": 5, "state_dict": {}}
    write_checkpoint(state, folder / "last.ckpt")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86_400)
    write_checkpoint(state | {"global_step": 9}, folder / "step-00000009.ckpt")
    assert newest_checkpoint(tmp_path) == folder / "step-00000009.ckpt"
    write_checkpoint(state | {"global_step": 2}, folder / "last.ckpt")  # a run that went back
    assert newest_checkpoint(tmp_path) == folder / "last.ckpt"


@pytest.mark.filterwarnings("ignore:Going on from")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_whatever_is_damaged_is_passed_over(tmp_path, kind):
    io, folder = AtomicCheckpointIO(), tmp_path / "checkpoints"
    save = io.save_checkpoint if kind == "file" else io.save_shards
    for step, name in enumerate(("step-00000001", "last"), 1):
        save({"global_step": step, "summary": {"tokens": 9}}, folder / f"{name}.ckpt")
    last = folder / "last.ckpt"
    assert newest_checkpoint(tmp_path) == last
    for path in [last] if kind == "file" else sorted(last.iterdir()):
        whole = path.read_bytes()
        for at in range(0, len(whole), 7):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << at % 8
            path.write_bytes(damaged)
            assert newest_checkpoint(tmp_path) == folder / "step-00000001.ckpt", (path, at)
        path.write_bytes(whole)
    assert newest_checkpoint(tmp_path) == last


def test_a_run_that_went_back_goes_on_from_there(run):
    folder = run / "checkpoints"
    state = AtomicCheckpointIO().load_checkpoint(folder / "step-00000004.ckpt")
    AtomicCheckpointIO().save_checkpoint(state | {"global_step": 5}, folder / "last.ckpt")
    assert newest_checkpoint(run) == folder / "last.ckpt"
    shard(folder / "last.ckpt")
    AtomicCheckpointIO().save_checkpoint(state | {"global_step": 6}, folder / "best.ckpt")
    assert newest_checkpoint(run) == folder / "best.ckpt"


def test_what_lightning_saves_for_a_cluster_is_found(run):
    (run / "checkpoints" / "last.ckpt").rename(run / "hpc_ckpt_1.ckpt")
    state = AtomicCheckpointIO().load_checkpoint(run / "hpc_ckpt_1.ckpt")
    AtomicCheckpointIO().save_checkpoint(state, run / "hpc_ckpt_1.ckpt")
    assert newest_checkpoint(run) == run / "hpc_ckpt_1.ckpt"


def test_auto_starts_anew_and_then_goes_on(tmp_path, command_line, arguments):
    automatic = [*arguments, "--ckpt_path=auto", "--trainer.limit_val_batches=0"]
    command_line(*automatic, "--trainer.max_steps=2", cwd=tmp_path)
    last = tmp_path / "run/checkpoints/last.ckpt"
    flip(last.with_name("step-00000002.ckpt"))  # saved after it
    with pytest.warns(UserWarning, match=r"Going on from run/checkpoints/last.ckpt, passing over"):
        command_line(*automatic, "--trainer.max_steps=3", cwd=tmp_path)
    assert AtomicCheckpointIO().summary(last)["step"] == 3
    assert not (tmp_path / "run.1").exists()


def test_a_damaged_checkpoint_that_is_named_is_refused(run, tmp_path, command_line, arguments):
    flip(run / "checkpoints" / "last.ckpt")
    for command in (
        [*arguments, "--trainer.max_steps=8", "--ckpt_path=last"],
        ["pile", "generate", "run", "--checkpoint=last"],
    ):
        done = command_line(*command, cwd=tmp_path, fails=True)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert "last.ckpt is damaged" in errors[0]
        assert "take another checkpoint" in errors[0]


def test_a_folder_is_used_like_a_file(run, tmp_path, command_line, arguments):
    path = run / "checkpoints" / "last.ckpt"
    text = ["pile", "generate", "run", "--max_new_tokens=20", "--checkpoint=last"]
    before = command_line(*text, cwd=tmp_path).stdout
    state = shard(path)
    assert path.is_dir()
    assert command_line(*text, cwd=tmp_path).stdout == before
    loaded = CausalLM.load_from_checkpoint(path)
    assert torch.equal(
        loaded.state_dict()["network.embedding.weight"],
        state["state_dict"]["network.embedding.weight"],
    )
    command_line(*arguments, "--trainer.max_steps=8", "--ckpt_path=last", cwd=tmp_path)
    assert path.is_file()
    assert AtomicCheckpointIO().summary(path)["step"] == 8


def test_a_folder_becomes_one_file(run, tmp_path, command_line):
    path = run / "checkpoints" / "last.ckpt"
    before = path.read_bytes()
    state = shard(path)
    done = command_line("pile", "consolidate", "run", cwd=tmp_path)
    whole = path.with_name("last-whole.ckpt")
    assert "pile generate run --checkpoint run/checkpoints/last-whole.ckpt" in done.stdout
    loaded = AtomicCheckpointIO().load_checkpoint(whole)
    assert read_summary(whole) == read_summary(path)
    for name, value in state["state_dict"].items():
        assert torch.equal(loaded["state_dict"][name], value)
    one, two = (s["optimizer_states"][0]["state"] for s in (loaded, state))
    assert one.keys() == two.keys()
    assert all(type(number) is int for number in one)
    command_line("pile", "consolidate", str(path), "other.ckpt", cwd=tmp_path)
    assert (tmp_path / "other.ckpt").read_bytes() == whole.read_bytes()
    assert len(before) == pytest.approx(whole.stat().st_size, rel=0.01)


def test_consolidate_refuses_what_it_cannot_do(run, tmp_path, command_line):
    path = run / "checkpoints" / "last.ckpt"
    refused = [(["run"], "is one file already")]
    for arguments, message in refused:
        done = command_line("pile", "consolidate", *arguments, cwd=tmp_path, fails=True)
        assert message in done.stderr
    shard(path)
    (tmp_path / "there.ckpt").write_text("mine")
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        (["run", "there.ckpt"], "there.ckpt exists; remove it, or name another file"),
        (["nowhere"], "there is no checkpoint nowhere"),
        (["empty"], "empty is no complete checkpoint"),
    ):
        done = command_line("pile", "consolidate", *arguments, cwd=tmp_path, fails=True)
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "there.ckpt").read_text() == "mine"


def test_a_folder_without_checkpoints_has_none_to_list(tmp_path, command_line):
    done = command_line("pile", "checkpoints", "nowhere", cwd=tmp_path, fails=True)
    assert "error: nowhere has no checkpoints; name the folder of a run" in done.stderr
