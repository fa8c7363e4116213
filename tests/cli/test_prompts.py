"""``pile generate`` with a file of prompts: a completion of each, whatever is read beside it."""

import json

import pytest

from pile_lightning.callbacks import Continuation
from pile_lightning.cli.prompts import read_prompts, write_continuations
from pile_lightning.whole_file import partial

PROMPTS = ["def ", "import os\\n", "class Message:", "x", "for each in range(", "# caf\u00e9"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, corpus, command_line, small):
    """The folder above a finished run of two steps."""
    folder = tmp_path_factory.mktemp("prompts")
    command_line("fit", *small, f"--data.sources={corpus}", "--trainer.max_steps=2", cwd=folder)
    (folder / "prompts.txt").write_text("\n".join([*PROMPTS[:3], "", *PROMPTS[3:]]) + "\n", "utf-8")
    lines = [json.dumps({"prompt": prompt, "other": 1}) for prompt in PROMPTS]
    (folder / "prompts.jsonl").write_text("\n".join(lines), "utf-8")
    return folder


def completions(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_a_file_of_prompts_gives_a_completion_of_each_in_order(run, command_line):
    command = ["pile", "generate", "run", "--max_new_tokens=12", "--precision=float32"]
    shown = command_line(*command, "--prompts=prompts.txt", cwd=run)
    lines = completions(shown.stdout)
    assert [line["prompt"] for line in lines] == PROMPTS
    assert any(line["completion"] for line in lines)
    assert f"{len(PROMPTS)} prompts, " in shown.stderr
    assert "tokens/s" in shown.stderr
    for settings in (["--batch_size=1"], ["--batch_size=4"], ["--prompts=prompts.jsonl"]):
        arguments = [*command, "--prompts=prompts.txt", "--output=out/here.jsonl", *settings]
        assert completions(command_line(*arguments, cwd=run).stdout) == []
        assert completions((run / "out/here.jsonl").read_text("utf-8")) == lines, settings
    alone = command_line(*command, f"--prompt={PROMPTS[0]}", cwd=run).stdout
    assert alone.startswith(lines[0]["prompt"] + lines[0]["completion"])


@pytest.mark.parametrize(
    "settings", [["--precision=float32"], ["--precision=bf16"], ["--quantize=int8"]]
)
def test_weights_may_be_of_fewer_bytes(run, command_line, settings):
    arguments = ["--prompts=prompts.txt", "--max_new_tokens=5", '--stop=["e"]', *settings]
    lines = completions(command_line("pile", "generate", "run", *arguments, cwd=run).stdout)
    assert len(lines) == len(PROMPTS)
    assert all("e" not in line["completion"] for line in lines)


MISTAKES = {
    "no such file": (["--prompts=none.txt"], "prompts='none.txt' is no file"),
    "nothing in it": (["--prompts=empty.txt"], "empty.txt has no prompts; write one a line"),
    "broken JSON": (["--prompts=broken.jsonl"], "broken.jsonl:2 is no JSON"),
    "another key": (["--prompts=key.jsonl"], "key.jsonl:1 has no prompt"),
    "another encoding": (["--prompts=latin.txt"], "latin.txt is not UTF-8"),
    "two sources": (["--prompts=prompts.txt", "--prompt=x"], "are two sources; give one"),
    "an output of one prompt": (["--output=x.jsonl"], "is for the prompts of a file"),
    "too long a prompt": (["--prompts=long.txt"], "prompt 1 has"),
    "no rows": (["--prompts=prompts.txt", "--batch_size=0"], "batch_size=0 reads nothing"),
    "an unknown rounding": (["--quantize=int3"], "int3"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_short_message_and_spoils_no_file(run, command_line, mistake):
    (run / "empty.txt").write_text("\n \n")
    (run / "broken.jsonl").write_text('"fine"\n{"prompt": ')
    (run / "key.jsonl").write_text('{"text": "x"}')
    (run / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    (run / "long.txt").write_text("x\n" + "xyz " * 100)
    (run / "kept.jsonl").write_text("kept")
    arguments, message = MISTAKES[mistake]
    if arguments[0] == "--prompts=long.txt":
        arguments = [*arguments, "--output=kept.jsonl"]
    done = command_line("pile", "generate", "run", *arguments, cwd=run, fails=True)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert (run / "kept.jsonl").read_text() == "kept"


def test_lines_are_written_in_order_as_soon_as_they_can_be(tmp_path):
    path, seen = tmp_path / "out.jsonl", []

    def found():
        for prompt in (1, 0, 3, 2):
            yield Continuation(prompt, f"text {prompt}", 5)
            seen.append(len(partial(path).read_text().splitlines()))
            assert not path.exists(), "it is not whole yet"

    write_continuations(found(), ["a", "b", "c", "d"], path)
    assert seen == [0, 2, 2, 4]
    assert [line["completion"] for line in completions(path.read_text())] == [
        f"text {n}" for n in range(4)
    ]


def test_prompts_may_be_plain_strings_of_json(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('"two\\nlines"\n\n{"prompt": "x"}\n')
    assert read_prompts(path) == ["two\nlines", "x"]


def test_nothing_more_is_continued_when_nobody_reads_it(monkeypatch):
    made = []

    def found():
        for prompt in (0, 1):
            made.append(prompt)
            yield Continuation(prompt, "text", 5)

    monkeypatch.setattr("pile_lightning.cli.prompts.output_lost", lambda: OSError("closed"))
    write_continuations(found(), ["a", "b"], None)
    assert made == [0]
