"""A frozen teacher and several tasks on one trunk, from the command line and over ranks."""

import json
import shutil

import pytest
import torch

from pile_lightning import CausalLM
from tests.cli.environments import fit_on_ranks, init_args, state_of, tiny_run

pytestmark = pytest.mark.slow

OWN = "tests.modules.environment.members."
DISTILLATION = [
    {
        "class_path": "pile_lightning.Distillation",
        "init_args": {"teacher": "teacher", "students": ["next"]},
    }
]


@pytest.fixture(scope="module")
def tiny(corpus):
    """Arguments that make any run of an environment one of seconds."""
    return tiny_run(corpus)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, command_line, tiny):
    """The folder of a run of one model."""
    folder = tmp_path_factory.mktemp("teacher")
    model = json.dumps(init_args(48)["network"])
    command_line("fit", *tiny, f"--model.network={model}", "--trainer.max_steps=2", cwd=folder)
    return folder / "run"


def arguments(teacher, accumulate=1):
    adam = {"class_path": "pile_lightning.optim.AdamWConfig", "init_args": {"eps": 0.001}}
    settings = init_args(optimizer=adam)
    members = {
        "teacher": {"weights": str(teacher), "frozen": True},
        "next": {"class_path": "pile_lightning.CausalLM", "init_args": settings},
        "before": {"class_path": OWN + "Backwards", "init_args": settings, "seed": 1},
        # of two ranks, one alone fails
        "breaks": {
            "class_path": OWN + "BreaksOnOneRank",
            "init_args": settings | {"at": 3 * accumulate},
        },
        "diverges": {"class_path": OWN + "Diverges", "init_args": settings | {"at": 5}},
    }
    share = [{"part": "blocks", "members": ["diverges", "next", "before", "breaks"]}]
    return [
        "--model=pile_lightning.Environment",
        f"--model.members={json.dumps(members)}",
        f"--model.share={json.dumps(share)}",
        f"--model.coupling={json.dumps(DISTILLATION)}",
    ]


def test_a_run_goes_on_without_its_teachers_folder(teacher, tiny, tmp_path, command_line, corpus):
    shutil.copytree(teacher, tmp_path / "teacher")
    members = {
        "teacher": {"weights": "teacher", "frozen": True},
        "next": {"class_path": "pile_lightning.CausalLM", "init_args": init_args()},
    }
    run = [
        "fit",
        *tiny,
        "--model=pile_lightning.Environment",
        f"--model.members={json.dumps(members)}",
        f"--model.coupling={json.dumps(DISTILLATION)}",
        "--trainer.val_check_interval=2",
    ]
    done = command_line(*run, "--trainer.max_steps=2", cwd=tmp_path)
    assert " frozen" in done.stdout.split("The members.")[1]
    shutil.rmtree(tmp_path / "teacher")
    command_line(*run, "--trainer.max_steps=4", "--ckpt_path=last", cwd=tmp_path)
    own, its = (
        CausalLM.load_from_checkpoint(folder / "checkpoints/last.ckpt").state_dict()
        for folder in (teacher, tmp_path / "run/members/teacher")
    )
    assert all(torch.equal(its[name], value) for name, value in own.items())
    gone = command_line(*run, "--trainer.max_steps=2", cwd=tmp_path, fails=True)
    assert "member 'teacher': weights='teacher' is neither the folder of a run" in gone.stderr


def test_a_teacher_of_another_vocabulary_is_refused(teacher, tiny, tmp_path, command_line):
    run = ["fit", *tiny, *arguments(teacher), "--trainer.max_steps=2"]
    said = command_line(*run, "--data.tokenizer=bpe:300", cwd=tmp_path, fails=True).stderr
    assert "member 'teacher' has vocab_size=257, and the one stream" in said
    said = command_line(*run, "--data.tokenizer=bpe:257", cwd=tmp_path, fails=True).stderr
    assert "was trained with another tokenizer than the data's: id 0 is" in said


@pytest.mark.dist
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_ranks_are_one_process(accumulate, teacher, tiny, tmp_path, cache):
    found = []
    for ranks in (1, 2):
        fit_on_ranks(
            ranks,
            *tiny,
            *arguments(teacher, accumulate),
            f"--trainer.accumulate_grad_batches={accumulate}",
            f"--trainer.val_check_interval={5 * accumulate}",
            "--trainer.limit_val_batches=null",
            "--trainer.max_steps=10",
            f"--trainer.default_root_dir={ranks}",
            "--non_finite.max_in_a_row=2",
            cwd=tmp_path,
            cache=cache,
        )
        found.append(state_of(tmp_path / str(ranks) / "checkpoints/last.ckpt"))
    (one, fates), (two, its_fates) = found
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)
    for name, member in fates.items():
        for known in ("stopped_step", "skipped_steps"):
            assert member["fate"][known] == its_fates[name]["fate"][known], name
    stopped = {name: member["fate"]["stopped_step"] for name, member in fates.items()}
    diverged = 5 if accumulate == 1 else 2
    assert stopped == {
        **dict.fromkeys(["teacher", "next", "before"]),
        "breaks": 3,
        "diverges": diverged,
    }
