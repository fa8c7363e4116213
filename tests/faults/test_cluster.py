"""The scripts for SLURM and torchrun, under fakes of the programs that a cluster has."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.faults.probe import events

SBATCH = REPOSITORY / "configs/cluster/slurm.sbatch"
TORCHRUN = REPOSITORY / "configs/cluster/torchrun.sh"

# starts the tasks as SLURM does, and ends with the highest of their codes
SRUN = r"""#!{python}
import os, subprocess, sys
arguments = sys.argv[1:]
options = [a for a in arguments if a.startswith("--")][:1]
assert options == ["--kill-on-bad-exit=1"], arguments
tasks = []
for rank in range(int(os.environ["SLURM_NTASKS"])):
    own = {{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}}
    tasks.append(subprocess.Popen(arguments[1:], env={{**os.environ, **own}}))
codes = [task.wait() for task in tasks]
open(os.environ["FAKES"] + "/codes.log", "a").write(f"{{codes}}\n")
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""
SCONTROL = '#!/bin/bash\necho "$@" >> "$FAKES/scontrol.log"\n'
PYTHON = """#!/bin/bash
printf '%s\\n' "$@" > "$FAKES/arguments.log"
echo "${SRUN_CPUS_PER_TASK:-none}" > "$FAKES/cpus.log"
exit "$CODE"
"""


@pytest.fixture
def slurm(tmp_path):
    """Run the batch script as SLURM would, once for each time that the job is queued."""
    fakes = tmp_path / "bin"
    fakes.mkdir()
    scripts = {"srun": SRUN.format(python=sys.executable), "scontrol": SCONTROL, "python": PYTHON}
    for name, text in scripts.items():
        (fakes / name).write_text(text)
        (fakes / name).chmod(0o755)
    started = []

    def start(*arguments, tasks=1, **variables):
        environment = {
            **os.environ,
            "PATH": f"{fakes}:{os.environ['PATH']}",
            "FAKES": str(fakes),
            "PYTHONPATH": str(REPOSITORY),
            "SLURM_JOB_ID": str(10_000 + os.getpid() % 10_000),  # Lightning makes a port of it
            "SLURM_JOB_NAME": "pile",
            "SLURM_NTASKS": str(tasks),
            "SLURM_NTASKS_PER_NODE": str(tasks),
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_NODELIST": "localhost",
            **{name: str(value) for name, value in variables.items()},
        }
        process = subprocess.Popen(
            ["bash", str(SBATCH), *map(str, arguments)],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    start.fakes = fakes
    start.lines = lambda name: (
        (fakes / f"{name}.log").read_text().splitlines()
        if (fakes / f"{name}.log").is_file()
        else []
    )
    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("script", [SBATCH, TORCHRUN], ids=lambda path: path.name)
def test_a_script_is_bash(script):
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).stderr == b""


@pytest.mark.parametrize(
    ("code", "again"),
    [(0, False), (1, False), (2, False), (85, True), (86, True), (87, True), (137, True)],
)
def test_the_job_is_queued_again_where_another_try_goes_on(code, again, slurm):
    job = slurm("--config", "my.yaml", CODE=code, SLURM_JOB_ID=71)
    said, _ = job.communicate(timeout=30)
    assert slurm.lines("scontrol") == (["requeue 71"] if again else []), said
    assert job.returncode == (0 if again else code)
    assert slurm.lines("arguments") == [
        *("train.py", "fit", "--trainer.num_nodes", "1", "--trainer.devices", "1"),
        *("--config", "my.yaml", "--ckpt_path", "auto"),
    ]


def test_a_job_of_an_array_is_queued_again_alone_and_has_a_folder_of_its_own(slurm):
    array = {"SLURM_ARRAY_JOB_ID": 70, "SLURM_ARRAY_TASK_ID": 3}
    job = slurm("--trainer.default_root_dir", "runs/lr {task}", CODE=85, SLURM_JOB_ID=73, **array)
    job.communicate(timeout=30)
    assert slurm.lines("scontrol") == ["requeue 70_3"]
    assert "runs/lr 3" in slurm.lines("arguments")


@pytest.mark.parametrize(("given", "has"), [({"SLURM_CPUS_PER_TASK": 8}, "8"), ({}, "none")])
def test_srun_gives_a_task_the_cores_that_the_job_has(given, has, slurm, monkeypatch):
    monkeypatch.delenv("SRUN_CPUS_PER_TASK", raising=False)
    slurm(CODE=0, **given).communicate(timeout=30)
    assert slurm.lines("cpus") == [has]


def test_a_job_is_not_queued_for_ever(slurm):
    job = slurm(CODE=87, SLURM_RESTART_COUNT=2, PILE_MAX_RESTARTS=2)
    said, _ = job.communicate(timeout=30)
    assert job.returncode == 87
    assert not slurm.lines("scontrol")
    assert "queued again 2 times already" in said


@pytest.mark.slow
@pytest.mark.dist
def test_a_preempted_job_is_queued_once_and_ends_as_if_it_had_not_been(
    slurm, small, corpus, cache, tmp_path
):
    def job(folder, **variables):
        return slurm(
            *small,
            f"--data.sources={corpus}",
            "--trainer.accelerator=cpu",
            "--trainer.strategy=ddp",
            "--trainer.precision=32-true",
            "--trainer.max_steps=12",
            "--trainer.callbacks+=tests.faults.probe.Probe",
            f"--trainer.default_root_dir={folder}",
            tasks=2,
            PILE_PYTHON=sys.executable,
            PILE_CACHE=cache,
            OMP_NUM_THREADS=1,
            **variables,
        )

    def ends(process):
        said, _ = process.communicate(timeout=240)
        assert process.returncode == 0, said
        return said

    ends(job(tmp_path / "whole"))
    assert not slurm.lines("scontrol")
    first = job(tmp_path / "run")
    deadline = time.monotonic() + 120
    while not all(len(events(tmp_path / "run", rank)) > 4 for rank in (0, 1)):
        assert time.monotonic() < deadline
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.01)
    for rank in (0, 1):  # `--signal=SIGUSR1@90` reaches every task
        os.kill(events(tmp_path / "run", rank)[0][0], signal.SIGUSR1)
    assert "exit code 85" in ends(first)
    at = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert 3 < at < 12
    ends(job(tmp_path / "run", SLURM_RESTART_COUNT=1))
    assert len(slurm.lines("scontrol")) == 1
    assert slurm.lines("codes") == ["[0, 0]", "[85, 85]", "[0, 0]"]
    assert not list((tmp_path / "run").glob("hpc_ckpt*")), "Lightning has saved as well"
    whole, again = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)
        for name in ("whole", "run")
    )
    assert again["global_step"] == 12
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, again["state_dict"][name]), name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_torchrun_is_told_to_leave_and_awaited(number, tmp_path):
    fake = tmp_path / "python"
    fake.write_text(
        "#!/bin/bash\n"
        'printf "%s\\n" "$@" > "$FAKES/arguments"\n'
        "trap 'sleep 0.3; touch $FAKES/saved; exit 1' TERM\n"
        "touch $FAKES/ready\n"
        "for _ in {1..200}; do sleep 0.05; done\n"
    )
    fake.chmod(0o755)
    process = subprocess.Popen(
        [str(TORCHRUN), "--config", "my.yaml"],
        env={**os.environ, "PILE_PYTHON": str(fake), "FAKES": str(tmp_path), "NPROC_PER_NODE": "2"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(20) == 85
    assert (tmp_path / "saved").exists()
    arguments = (tmp_path / "arguments").read_text().split()
    for words in ("--nproc-per-node 2", "--max-restarts 3", "--rdzv-backend c10d"):
        assert words in " ".join(arguments)
    assert arguments[-4:] == ["--config", "my.yaml", "--ckpt_path", "auto"]
