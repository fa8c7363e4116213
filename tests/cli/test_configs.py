"""Every config that is shipped takes two steps, on a little text of its own format."""

import itertools
import json
import math

import pytest
import yaml
import zstandard

from pile_lightning.nn import SizedDecoderConfig
from tests.conftest import REPOSITORY

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))
STRATEGIES = sorted((REPOSITORY / "configs/cluster").glob("*.yaml"))
SIZES = sorted((REPOSITORY / "configs/sizes").glob("*.yaml"))
PILE = yaml.safe_load((REPOSITORY / "configs/the_pile.yaml").read_text())["data"]["init_args"]

# what makes any of them small
SMALL = [
    "--data.tokenizer=bpe:300",
    "--data.seq_len=64",
    "--data.val_stride=32",
    "--data.val_fraction=0.2",
    "--data.batch_size=32",
    "--model.compile=false",
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.default_root_dir=run",
    "--samples.max_new_tokens=4",
]

SMALL_NETWORK = {
    "pile_lightning.nn.DecoderConfig": [
        "--model.network.d_model=32",
        "--model.network.num_layers=1",
    ],
    "pile_lightning.nn.SizedDecoderConfig": ["--model.network.size=d1"],
}


def small_network(config):
    """Return what makes the network of a config small."""
    model = yaml.safe_load(config.read_text())["model"]["init_args"]
    return SMALL_NETWORK[model["network"]["class_path"]]


def pieces_of(corpus):
    """Yield pieces of the corpus, each another text, without end."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(corpus.glob("*.py")))
    for number in itertools.count():
        start = 613 * number % len(text)
        yield text[start : start + 700]


@pytest.fixture(scope="module")
def pile(tmp_path_factory, corpus):
    """A folder in the format of The Pile: two compressed files, all domains in both."""
    folder = tmp_path_factory.mktemp("pile")
    pieces = pieces_of(corpus)
    for part in range(2):
        lines = [
            json.dumps({"text": next(pieces), "meta": {"pile_set_name": name}})
            for _ in range(5)
            for name in PILE["mixture"]["weights"]
        ]
        content = zstandard.compress("\n".join(lines).encode())
        (folder / f"{part:02}.jsonl.zst").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def text_of(corpus, pile, tmp_path_factory):
    """Arguments that give each config text of its format from this machine."""
    local = tmp_path_factory.mktemp("hub")
    pieces = pieces_of(corpus)
    for part in range(2):
        lines = [json.dumps({"text": next(pieces)}) for _ in range(100)]
        (local / f"{part}.jsonl").write_text("\n".join(lines))
    return {
        "minute": [f"--data.sources={corpus}"],
        "quickstart": [f"--data.sources={corpus}"],
        "ten_minutes": [
            f"--data.sources={corpus}",
            "--data.short_rows.until_tokens=2048",
        ],
        "folder": [f"--data.sources={corpus}"],
        "hub": [
            f"--data.sources.path={local}",
            "--data.sources.config=default",
            "--data.num_lanes=32",
            "--data.num_workers=0",
        ],
        "the_pile": [f"--data.sources.path={pile}/*.jsonl.zst"],
    }


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # datasets leaves files to the collector
@pytest.mark.parametrize(
    "config",
    [
        pytest.param(each, marks=pytest.mark.slow) if each.stem in ("hub", "the_pile") else each
        for each in CONFIGS
    ],
    ids=lambda path: path.stem,
)
def test_a_config_takes_two_steps(config, text_of, tmp_path, command_line, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    arguments = [*SMALL, *small_network(config), *text_of[config.stem]]
    done = command_line("fit", f"--config={config}", *arguments, cwd=tmp_path)
    assert "for 2 steps" in done.stdout
    assert "this model, step 2" in done.stdout
    if config.stem == "the_pile":
        table = done.stdout.split("By domain, since the first step.")[1]
        for name in PILE["mixture"]["weights"]:
            assert f"\n  {name} " in table
        assert "all, by the mixture" in table


def test_the_weights_are_those_of_the_paper():
    weights = PILE["mixture"]["weights"]
    assert len(weights) == 22
    assert sum(weights.values()) == pytest.approx(100)
    assert weights["Pile-CC"] == 18.11
    assert weights["Enron Emails"] == 0.14


def test_a_runs_folder_is_its_own_and_named_by_its_config():
    for config in CONFIGS:
        trainer = yaml.safe_load(config.read_text())["trainer"]
        assert trainer["default_root_dir"] == f"runs/{config.stem}"


def test_a_size_goes_on_top_of_a_config_and_takes_two_steps(text_of, tmp_path, command_line):
    done = command_line(
        "fit",
        f"--config={REPOSITORY / 'configs/folder.yaml'}",
        f"--config={REPOSITORY / 'configs/sizes/d4.yaml'}",
        *SMALL,
        *small_network(REPOSITORY / "configs/sizes/d4.yaml"),
        *text_of["folder"],
        cwd=tmp_path,
    )
    assert "for 2 steps" in done.stdout
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["model"]["init_args"]
    assert config["network"]["init_args"]["size"] == "d1"
    assert "d_model" not in config["network"]["init_args"]
    assert config["optimizer"]["init_args"]["base_width"] == 256
    said = command_line("pile", "generate", "run", "--max_new_tokens=3", cwd=tmp_path).stdout
    assert said


@pytest.mark.parametrize("config", SIZES, ids=lambda path: path.stem)
def test_a_size_has_the_tokens_and_the_batch_of_its_compute(config):
    content = yaml.safe_load(config.read_text())
    network = content["model"]["init_args"]["network"]["init_args"]
    assert network == {"size": config.stem}
    sized = SizedDecoderConfig(**network)
    parameters = 12 * sized.num_layers * sized.d_model**2
    data = content["data"]["init_args"]
    step = data["batch_size"] * data["seq_len"]
    # 20 tokens a parameter: Hoffmann et al., arXiv 2203.15556
    tokens = 20 * parameters
    assert content["trainer"]["max_steps"] * step == pytest.approx(tokens, rel=0.03)
    # the batch that fits so much compute: DeepSeek LLM, arXiv 2401.02954, section 3.1
    assert round(math.log2(0.2920 * (6 * parameters * tokens) ** 0.3271)) == math.log2(step)


@pytest.mark.parametrize("config", STRATEGIES, ids=lambda path: path.stem)
def test_a_strategy_goes_on_top_of_any_config(config, tmp_path, command_line):
    quickstart = REPOSITORY / "configs/quickstart.yaml"
    printed = command_line(
        "fit",
        f"--config={quickstart}",
        f"--config={config}",
        "--trainer.devices=8",
        "--print_config",
        cwd=tmp_path,
    ).stdout
    both = yaml.safe_load(printed)
    own = yaml.safe_load(config.read_text())["trainer"]["strategy"]
    assert both["trainer"]["strategy"]["class_path"] == own["class_path"]
    assert both["trainer"]["strategy"]["init_args"].items() >= own.get("init_args", {}).items()
    assert both["trainer"]["default_root_dir"] == "runs/quickstart"
