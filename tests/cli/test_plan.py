"""``pile plan`` takes what train.py takes, prepares nothing, and says what is so."""

import re
from dataclasses import replace

import pytest
import yaml
from jsonargparse import Namespace
from matplotlib.image import imread

from pile_lightning import CausalLM, DecoderConfig, TextData
from pile_lightning.callbacks.text_table import COLUMNS
from pile_lightning.cli.inspection import run_lines
from pile_lightning.cli.plan_figures import Figures
from pile_lightning.cli.plan_lines import memory_lines, speed_lines
from pile_lightning.cli.plan_run import Run, count_ranks, find_layout
from pile_lightning.cli.plan_schedule import schedule_lines
from pile_lightning.cli.plan_text import text_lines
from pile_lightning.cli.plan_warnings import warning_lines
from pile_lightning.optim import AdamWConfig
from pile_lightning.parallel import Layout
from pile_lightning.plan import GPUS, Precision, find_gpu
from tests.cli.test_configs import small_network
from tests.conftest import REPOSITORY

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))
CONFIG = """
data:
  class_path: pile_lightning.TextData
  # a share held out that is this file's own: what others prepare is not found
  init_args:
    {{sources: "{corpus}", tokenizer: byte, seq_len: 64, batch_size: 32, val_fraction: 0.21}}
model:
  class_path: pile_lightning.CausalLM
  init_args:
    network:
      class_path: pile_lightning.nn.DecoderConfig
      init_args: {{d_model: 32, num_layers: 2}}
    optimizer: {{class_path: pile_lightning.optim.AdamWConfig}}
    schedule: {{class_path: pile_lightning.optim.CosineConfig, init_args: {{warmup: 10}}}}
    compile: true
trainer: {{max_steps: 100, default_root_dir: run, precision: bf16-mixed, accelerator: cpu}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, corpus):
    """A folder with the config of a tiny run."""
    made = tmp_path_factory.mktemp("plan")
    (made / "x.yaml").write_text(CONFIG.format(corpus=corpus))
    return made


@pytest.fixture(scope="module")
def printed(folder, command_line, cache):
    """What the command says about 16 GPUs; it prepares nothing."""
    before = sorted(cache.iterdir())
    said = command_line(
        *["pile", "plan", "--config=x.yaml", "--gpu=h100", "--gpus", "16"], cwd=folder
    ).stdout
    assert sorted(cache.iterdir()) == before
    return said


def test_it_tells_what_the_run_is(printed, folder):
    # 257 ids; two blocks of 12 d^2
    matrices, tables = 2 * 12 * 32 * 32, 257 * 32
    assert f"{tables / 1000:.2f} k in embeddings and head" in printed
    assert f"{matrices / 1000:.1f} k in matrices" in printed
    flops = 6 * (matrices + tables) + 12 * 2 * 32 * 64
    tokens = 32 * 64 * 100
    assert f"Cost: {flops:.3g} FLOPs a token, forward and backward." in printed
    assert "A step: 32 rows of 64, 2.05 k tokens," in printed
    assert "2 rows at a time on each of 16 ranks." in " ".join(printed.split())
    assert f"The run: 100 steps, 205 k tokens, {tokens * flops:.3g} FLOPs, 6.21 tokens" in printed
    assert "CosineConfig: times 0.0909 at step 0, 1 at step 10," in printed
    assert "Text: not prepared yet; pile prepare" in printed
    assert "Warning" not in printed
    assert imread(folder / "run/plan.png").std() > 0
    *_, last = printed.strip().splitlines()
    train = "python train.py fit --config=x.yaml"
    assert last.strip() == f"{train} --trainer.devices 8 --trainer.num_nodes 2"


def test_layouts_stand_side_by_side(printed):
    memory = printed[printed.index("Memory of a rank") :].split("\n\n")[0]
    names = ["* ddp 16", "single", "FSDP2 8, 2 replicas", "FSDP2 16", "tensor 2, 8 replicas"]
    for name in [*names, "FSDP2 8 x tensor 2"]:
        assert re.search(rf"^ +{re.escape(name)} .* fits$", memory, re.MULTILINE), name
    told = " ".join(printed.split())
    for words in ("An estimate, not a measurement", "989 TFLOP/s", "400 Gb/s", "50.0 % of which"):
        assert words in told


def test_lines_fit_the_screen(printed):
    for line in printed.split("\nNext:")[0].splitlines():
        assert len(line) <= COLUMNS, line


@pytest.mark.parametrize(
    "config",
    [CONFIGS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in CONFIGS[1:])],
    ids=lambda path: path.stem,
)
def test_every_config_can_be_planned(config, command_line, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    settings = yaml.safe_load(config.read_text())
    small = [*small_network(config), "--data.batch_size=64"]
    done = command_line("pile", "plan", f"--config={config}", *small, cwd=tmp_path)
    assert f"The run: {settings['trainer']['max_steps']:,} steps" in done.stdout
    assert (tmp_path / settings["trainer"]["default_root_dir"] / "plan.png").is_file()


@pytest.mark.slow
def test_the_config_that_a_run_leaves_can_be_planned(small, corpus, command_line, tmp_path):
    own = [f"--data.sources={corpus}", "--trainer.max_steps=2"]
    command_line("fit", *small, *own, cwd=tmp_path)
    done = command_line("pile", "plan", "--config=run/config.yaml", cwd=tmp_path)
    assert "The run: 2 steps" in done.stdout
    assert "In 2 steps of 8 rows of 64" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu=h1000"], "gpu='h1000' is not known; choose one of a100-40gb, a100, h100"),
        (["--gpus=0"], "gpus=0 and gpus_per_node=8 are counts; choose 1 or more"),
        (["--model.network.d_modle=3"], "'d_modle' is not a setting here; did you mean 'd_model'?"),
        (
            ["--model=lightning.pytorch.demos.boring_classes.BoringModel"],
            "BoringModel and TextData",
        ),
    ],
)
def test_a_mistake_gives_one_clear_message(arguments, message, folder, command_line):
    said = command_line(
        "pile", "plan", "--config=x.yaml", *arguments, cwd=folder, fails=True
    ).stderr
    assert f"error: {message}" in said
    assert len(said.splitlines()) == 1


# -- without the command line ---------------------------------------------------------------------


TINY = DecoderConfig(d_model=32, num_layers=2)


def make_run(network=TINY, **settings):
    data = settings.pop("data", None) or TextData(tokenizer="byte", seq_len=64, batch_size=8)
    made = Run(
        data=data,
        module=CausalLM(network, vocab_size=257, max_seq_len=64, optimizer=AdamWConfig()),
        layout=Layout(),
        ranks_per_node=8,
        gpu=GPUS["h100"],
        device="cuda",
        precision=Precision.of("bf16-mixed"),
        checkpointing="none",
        accumulate=1,
        max_steps=100,
    )
    return replace(made, **settings)


def test_a_run_that_does_not_fit_is_told_what_would(tmp_path):
    wide = DecoderConfig(d_model=256, num_layers=3)
    ddp, fsdp = Layout(replicate=8), Layout(shard=8)
    needs = Figures(make_run(wide, layout=ddp)).memory(ddp, "full").peak
    small = replace(GPUS["h100"], name="small one", memory=needs)
    figures = Figures(make_run(wide, layout=ddp, gpu=small))
    # 90 % of the memory may be filled
    assert not any(figures.fits(figures.memory(ddp, kind)) for kind in figures.kinds)
    assert figures.fits(figures.memory(fsdp))
    (said, *_) = warning_lines(figures, tmp_path)
    assert re.search(
        r"rank needs [\d.]+ MB under ddp 8, .*small one has [\d.]+ MB; FSDP2 8 fits", said
    )
    (said, *_) = warning_lines(Figures(make_run(wide, gpu=small)), tmp_path)
    assert "nor does another layout of one rank fit" in said


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": Layout(replicate=3)}, "batch_size=8 is not a multiple of 3 ranks .* x 1 acc"),
        ({"accumulate": 5}, "x 5 accumulated batches, and train.py will refuse it; .* 10"),
        ({"max_steps": 20}, r"0.31 tokens a parameter are few"),
    ],
)
def test_it_warns(settings, message, tmp_path):
    (said,) = warning_lines(Figures(make_run(**settings)), tmp_path)
    assert re.search(rf"Warning: .*{message}", said)


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: Namespace(free=1000))
    (said,) = warning_lines(Figures(make_run()), tmp_path / "not" / "there")
    assert f"1 kB are free at {tmp_path}, and 3 checkpoints of" in said


def test_of_prepared_text_it_tells_the_domains(corpus, cache):
    data = TextData(str(corpus), tokenizer="byte", seq_len=64, cache_dir=str(cache))
    data.prepare_data()
    assert text_lines(make_run(data=data)) == ["Text:", *run_lines(data, 100)]
    missing = TextData("nowhere", tokenizer="byte", seq_len=64, cache_dir=str(cache))
    assert "'nowhere' does not exist" in text_lines(make_run(data=missing))[0]


def test_without_a_last_step_there_is_no_schedule():
    assert schedule_lines(make_run(max_steps=-1)) == []


def test_without_a_gpu_there_is_no_speed_and_no_verdict():
    figures = Figures(make_run(gpu=None))
    assert "--gpu h100" in speed_lines(figures)[0]
    assert not any(line.endswith(("fits", "no")) for line in memory_lines(figures))
    with pytest.raises(ValueError, match=r"efficiency=2.0 is the share of the GPU's peak"):
        Figures(make_run(), efficiency=2.0).speed(Layout())


def test_other_layouts_have_as_many_rows_and_accumulate_as_they_need():
    run = make_run(layout=Layout(replicate=4))
    rows = {layout: run.rows(layout) for layout in (Layout(), Layout(shard=2), Layout(tensor=4))}
    assert set(rows.values()) == {2}
    assert [run.micro_batches(layout) for layout in rows] == [4, 2, 4]
    assert (run.rows(Layout(shard=8)), run.micro_batches(Layout(shard=8))) == (1, 1)
    assert run.micro_batches(run.layout) == 1


def test_twice_the_gpus_are_faster_and_half_the_peak_is_reached_at_most():
    speeds = []
    for ranks in (1, 2):
        run = make_run(layout=Layout(shard=ranks), gpu=find_gpu("h100"))
        speed = Figures(run).speed(run.layout)
        fast, slow = speed.tokens_per_second
        assert slow <= fast
        assert 0 < speed.mfu[1] <= speed.mfu[0] <= 0.5
        speeds.append(speed)
    assert speeds[1].computing == pytest.approx(speeds[0].computing / 2, rel=0.01)
    assert speeds[0].hidden == speeds[0].waited == 0 < speeds[1].hidden


def sharded(name="ShardedStrategy", **arguments):
    return Namespace(class_path=f"a.{name}", init_args=Namespace(**arguments))


@pytest.mark.parametrize(
    ("strategy", "ranks", "layout"),
    [
        ("auto", 1, Layout()),
        ("ddp_find_unused_parameters_true", 4, Layout(replicate=4)),
        ("fsdp", 4, Layout(shard=4)),
        ("pile_lightning.parallel.BlockFSDPStrategy", 4, Layout(shard=4)),
        ("pile_lightning.ShardedStrategy", 4, Layout(shard=4)),
        (sharded(shard=None, replicate=1, tensor=2), 8, Layout(shard=4, tensor=2)),
        (sharded(shard="auto", replicate=2), 8, Layout(shard=4, replicate=2)),
        (sharded(shard=2, tensor=1), 8, Layout(shard=2, replicate=4)),
        (
            sharded(cpu_offload=True, reshard=False),
            2,
            Layout(shard=2, cpu_offload=True, reshard=False),
        ),
        (
            sharded("ModelParallelStrategy", data_parallel_size="auto", tensor_parallel_size=2),
            8,
            Layout(shard=4, tensor=2),
        ),
    ],
)
def test_a_strategy_is_a_layout(strategy, ranks, layout):
    assert find_layout(strategy, ranks) == layout


def test_sizes_have_to_make_up_the_ranks():
    with pytest.raises(ValueError, match="replicate=2 x shard=2 x tensor=1 are 4 ranks.* has 6"):
        find_layout(sharded(shard=2, replicate=2), 6)
    with pytest.raises(ValueError, match="strategy='deepspeed' is one that a plan does not"):
        find_layout("deepspeed", 2)


@pytest.mark.parametrize(
    ("devices", "ranks"), [(2, 4), ("3", 6), ([0, 2], 4), ("0,1", 4), ("auto", 2), (-1, 2)]
)
def test_ranks_are_devices_times_nodes(devices, ranks, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    trainer = Namespace(devices=devices, num_nodes=2, accelerator="cpu")
    assert count_ranks(trainer) == ranks
    monkeypatch.setenv("WORLD_SIZE", "12")  # what a launcher says goes before
    assert count_ranks(trainer) == 12
