"""What the README shows for a user's own model and data works as it stands there."""

import re
import subprocess
import sys

import pytest
import torch
import yaml

from pile_lightning.cli.generate import load_run
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
SECTION = README.split("## Bring your own")[1].split("\n## ")[0]
BLOCKS = re.findall(
    r"```python\n(# mine\.py\n.*?)```\n\n    python train\.py (.*?)\n", SECTION, re.S
)
NAMES = ["network", "loss", "documents"]


def test_the_readme_shows_three_of_at_most_fifteen_lines():
    assert len(BLOCKS) == len(NAMES)
    assert all(len(code.strip().splitlines()) <= 16 for code, _ in BLOCKS)  # and its name


@pytest.fixture(
    params=[0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, len(NAMES)))], ids=NAMES
)
def block(request):
    return BLOCKS[request.param]


def test_it_trains_resumes_loads_and_generates(
    block, tmp_path, corpus, command_line, small, monkeypatch
):
    monkeypatch.syspath_prepend(str(tmp_path))
    code, command = block
    (tmp_path / "mine.py").write_text(code)
    own = command.split()[3:]  # after: fit --config configs/quickstart.yaml
    if "mine.Squares" not in own:
        own += ["--data.sources", str(corpus)]
    if "mine.BigramConfig" in own:
        fitting = [a for a in small if "d_model" not in a and "num_layers" not in a]
    else:
        fitting = small
    run = ["fit", *fitting, *own, "--trainer.val_check_interval=2"]
    command_line(*run, "--trainer.max_steps=4", cwd=tmp_path)
    again = command_line(*run, "--trainer.max_steps=6", "--ckpt_path=last", cwd=tmp_path)
    assert "2 steps" in again.stdout
    model = load_run(tmp_path / "run")
    assert (type(model.network).__name__, getattr(model, "gamma", None), model.vocab_size) == {
        "network": ("Bigram", None, 257),
        "loss": ("Decoder", 0.5, 257),
        "documents": ("Decoder", None, 257),
    }[NAMES[BLOCKS.index(block)]]
    text = command_line(
        "pile", "generate", "run", "--prompt=def ", "--max_new_tokens=5", cwd=tmp_path
    )
    assert text.stdout.startswith("def ")


def test_a_model_is_found_where_train_py_is_run_from_and_keeps_the_configs_network(tmp_path):
    code, command = BLOCKS[NAMES.index("loss")]
    (tmp_path / "mine.py").write_text(code)
    config = REPOSITORY / "configs" / "quickstart.yaml"
    arguments = [*command.split()[3:], "--print_config"]
    shown = subprocess.run(
        [sys.executable, str(REPOSITORY / "train.py"), "fit", f"--config={config}", *arguments],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    model = yaml.safe_load(shown.stdout)["model"]
    assert (model["class_path"], model["init_args"]["gamma"]) == ("mine.Focal", 0.5)
    given = yaml.safe_load(config.read_text())["model"]["init_args"]["network"]["init_args"]
    kept = model["init_args"]["network"]["init_args"]
    assert kept["d_model"] == given["d_model"]
    assert kept["init"]["output"] == given["init"]["output"]


def test_the_readmes_python_runs(tmp_path, corpus, cache):
    code = re.search(r"without the command line:\n\n```python\n(.*?)```", SECTION, re.S).group(1)
    code = code.replace('"my/folder"', f'"{corpus}", cache_dir="{cache}"')
    code = code.replace("bpe:4096", "byte").replace("1000", "2").replace("=250", "=2")
    code = code.replace("d_model=256", "d_model=32, num_layers=1")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    assert torch.load(next(tmp_path.rglob("*.ckpt")), weights_only=True)["global_step"] == 2
