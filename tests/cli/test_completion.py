import shutil
import subprocess

import pytest

from pile_lightning.cli.completion import completion_script


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_settings_values_and_configs(tmp_path):
    script = tmp_path / "pile"
    script.write_text(completion_script("bash"))
    typed = {
        "pile ge": "generate",
        "pile fit --config quicks": "quickstart",
        "pile fit --trainer.max_st": "--trainer.max_steps",
        "pile fit --data.sou": "--data.sources",
        "pile generate --quantize in": "int8",
        "pile config minu": "minute",
    }
    lines = [f"source {script}"]
    for words in typed:
        lines += [f"COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}; COMPREPLY=()"]
        lines += ["_shtab_pile; echo ${COMPREPLY[*]}"]
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == list(typed.values())


def test_zsh_has_the_configs():
    assert "compadd -- folder hub minute" in completion_script("zsh")
