"""``pile scaling`` reads what a run left, and says the law that its sizes follow."""

import re
import shutil

import pytest

from pile_lightning import CausalLM
from pile_lightning.analysis import ScalingLaw, TokenLaw
from pile_lightning.callbacks import read_metrics
from tests.cli.environments import rewrite, sweep_of, tiny_run, write

WIDTHS = [16, 24, 32, 48, 64]
LAW = ScalingLaw(floor=1.2, scale=40.0, exponent=0.45)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, command_line, corpus):
    """A finished run of five sizes."""
    folder = tmp_path_factory.mktemp("sizes")
    command_line(
        "fit",
        *tiny_run(corpus),
        *sweep_of(**{"network.d_model": WIDTHS}),
        "--trainer.max_steps=2",
        "--trainer.val_check_interval=2",
        cwd=folder,
    )
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "run")


def model_of(run, width):
    path = run / f"members/d_model={width}/checkpoints/last.ckpt"
    model = CausalLM.load_from_checkpoint(path)
    model.configure_model()
    return model


def non_embedding(run, width):
    network = model_of(run, width).network
    return network.num_parameters - network.embedding.weight.numel()


def follow_the_law(run):
    scores = {
        f"val/d_model={width}/bits_per_byte": float(LAW(non_embedding(run, width)))
        for width in WIDTHS
    }
    rewrite(run, lambda row: row | {name: scores[name] for name in scores if name in row})


def test_a_law_that_the_scores_follow_is_found_and_predicts_the_largest(run, command_line):
    follow_the_law(run)
    said = command_line("pile", "scaling", "run", cwd=run.parent).stdout
    assert "N being non-embedding parameters" in said
    for name, value in {"E": 1.2, "A": 40.0, "alpha": 0.45}.items():
        found = float(re.search(rf"^  {name} +([\d.]+) ", said, re.MULTILINE)[1])
        assert found == pytest.approx(value, rel=0.02)
    assert "Fitted to 4 sizes" in said
    line = re.search(r"N = [\d.]+ k: ([\d.]+) predicted .*, ([\d.]+) measured", said)
    predicted, measured = line.groups()
    assert float(measured) == pytest.approx(LAW(non_embedding(run, 64)), abs=1e-4)
    assert float(predicted) == pytest.approx(float(measured), rel=1e-3)
    assert (run / "scaling.png").stat().st_size > 10_000


def test_the_table_counts_what_was_trained(run, command_line):
    said = command_line("pile", "scaling", "run", "--picture=law.png", cwd=run.parent).stdout
    assert (run.parent / "law.png").is_file()
    rows = [line.split() for line in said.splitlines() if line.startswith("  d_model=")]
    assert [row[0] for row in rows] == [f"d_model={width}" for width in WIDTHS]
    last = read_metrics(run / "metrics.csv")[-1]
    tokens = next(
        row["throughput/tokens"]
        for row in reversed(read_metrics(run / "metrics.csv"))
        if "throughput/tokens" in row
    )
    for row, width in zip(rows, WIDTHS, strict=True):
        name, parameters, unit, own, _, flops, score, _ = row
        network = model_of(run, width).network
        assert unit == "k"
        assert float(parameters) == pytest.approx(network.num_parameters / 1e3, rel=0.01)
        assert float(own) == pytest.approx(non_embedding(run, width) / 1e3, rel=0.01)
        assert float(flops) == pytest.approx(network.flops_per_token(64) * tokens, rel=0.01)
        assert float(score) == pytest.approx(last[f"val/{name}/bits_per_byte"], abs=1e-4)


def test_all_sizes_are_fitted_where_none_is_held_out(run, command_line):
    follow_the_law(run)
    said = command_line("pile", "scaling", "run", "--hold_out=0", cwd=run.parent).stdout
    assert "Fitted to 5 sizes" in said
    assert "Left out" not in said


def test_too_few_sizes_say_how_many_are_needed(run, command_line):
    failed = command_line("pile", "scaling", "run", "--hold_out=2", cwd=run.parent, fails=True)
    assert "there are 5 sizes, and 2 of them left out" in failed.stderr
    assert "needs 4 besides those, 6 in all" in failed.stderr


def test_a_member_that_was_stopped_is_left_out_and_named(run, command_line):
    follow_the_law(run)
    score = "val/d_model=16/bits_per_byte"
    rows = read_metrics(run / "metrics.csv")
    later = {name: value for name, value in rows[-1].items() if name != score} | {"step": 4}
    write(run, [*rows, later])
    said = command_line("pile", "scaling", "run", "--hold_out=0", cwd=run.parent).stdout
    ended = "was stopped after step 2, and the others were scored at step 4"
    assert f"run: d_model=16 is left out: {ended}" in said
    assert "Fitted to 4 sizes" in said


def test_two_lengths_say_what_is_missing(run, command_line):
    shutil.copytree(run, run.parent / "longer")
    name = "throughput/tokens"
    rewrite(run, lambda row: row | ({name: 2 * row[name]} if name in row else {}))
    failed = command_line("pile", "scaling", "run", "longer", cwd=run.parent, fails=True)
    missing = "B and beta need 3 counts of tokens (there are 2): train a run of another"
    assert missing in failed.stderr
    assert "runs of one length give the law in the size alone" in failed.stderr
    failed = command_line("pile", "scaling", "run", "--budget=1e15", cwd=run.parent, fails=True)
    assert "all members were trained on as many tokens" in failed.stderr


TOKEN_LAW = TokenLaw(floor=1.0, scale=40.0, exponent=0.45, token_scale=300.0, token_exponent=0.6)


def lengthen(run, times):
    """Let a run say that it saw so many times the tokens, and what the law gives for them."""
    rows = read_metrics(run / "metrics.csv")
    name = "throughput/tokens"
    counted = next(row for row in reversed(rows) if name in row)
    tokens = times * counted[name] * rows[-1]["step"] / counted["step"]
    scores = {
        f"val/d_model={width}/bits_per_byte": float(TOKEN_LAW(non_embedding(run, width), tokens))
        for width in WIDTHS
    }
    changed = {name: times * counted[name]} | scores
    rewrite(run, lambda row: row | {key: changed[key] for key in changed if key in row})
    return tokens


def test_runs_of_several_lengths_give_a_law_in_tokens_and_what_to_spend_on(run, command_line):
    runs = [shutil.copytree(run, run.parent / f"times{times}") for times in (4, 16, 64)]
    lengths = [lengthen(run, times) for run, times in zip(runs, (4, 16, 64), strict=True)]
    names = [run.name for run in runs]
    said = command_line("pile", "scaling", *names, "--budget=1e12", cwd=run.parent).stdout
    assert "N being non-embedding parameters" in said
    for name, value in {"E": 1.0, "A": 40.0, "alpha": 0.45, "B": 300.0, "beta": 0.6}.items():
        found = float(re.search(rf"^  {name} +([\d.]+) ", said, re.MULTILINE)[1])
        assert found == pytest.approx(value, rel=0.01)
    assert "Fitted to 14 pairs of a size and a length" in said
    [line] = [line for line in said.splitlines() if line.startswith("Left out")]
    measured = TOKEN_LAW(non_embedding(run, 64), lengths[-1])
    assert f"{float(measured):.4f} predicted" in line
    [row] = [line.split() for line in said.splitlines() if line.startswith("  1.00e+12 ")]
    size = float(row[1]) * {"k": 1e3, "M": 1e6}[row[2]]
    # near the sizes that were trained, no other is better for the same FLOPs
    network = model_of(run, 64).network
    cost = network.flops_per_token(64) / non_embedding(run, 64)

    def loss(n):
        return float(TOKEN_LAW(n, 1e12 / (cost * n)))

    assert size > non_embedding(run, 64)  # from where on the cost is in proportion
    assert loss(size) <= min(loss(0.9 * size), loss(1.1 * size))
    assert (runs[0] / "scaling.png").stat().st_size > 10_000


def test_runs_of_other_text_are_not_mixed(run, tmp_path, command_line, corpus):
    command_line(
        "fit",
        *tiny_run(corpus),
        *sweep_of(**{"network.d_model": [8, 12]}),
        "--data.val_fraction=0.4",
        "--trainer.max_steps=2",
        "--trainer.val_check_interval=2",
        "--trainer.default_root_dir=other",
        cwd=tmp_path,
    )
    failed = command_line("pile", "scaling", "run", "other", cwd=run.parent, fails=True)
    assert re.search(r"on other text \(they differ in .*val_fraction.*same text", failed.stderr)
    both = command_line("pile", "scaling", "run", "run", cwd=run.parent).stdout
    assert both.count("  d_model=16 ") == 2


def test_a_folder_that_is_no_run_of_several_is_refused(run, command_line):
    command = ("pile", "scaling")
    failed = command_line(*command, "nowhere", cwd=run.parent, fails=True)
    assert "nowhere is not the folder of a run: it has no config.yaml" in failed.stderr
    one = "run/members/d_model=16"
    failed = command_line(*command, one, cwd=run.parent, fails=True)
    assert f"{one} is a run of one model, and a law needs several sizes" in failed.stderr
    rewrite(run, lambda row: {k: v for k, v in row.items() if not k.startswith("val/")})
    failed = command_line(*command, "run", cwd=run.parent, fails=True)
    assert "no member of run has a held-out score in metrics.csv" in failed.stderr
