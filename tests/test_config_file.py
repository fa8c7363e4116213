"""A config file is plain data, or one line says which line of it is not."""

import re

import pytest

from pile_lightning.config_file import read_config, read_model_class

LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)


def test_what_a_config_holds_is_plain_data(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("\ufeffbase: &base {seed: 1}\nmodel: {<<: *base, class_path: a.B}\nnull: 2\n")
    assert read_config(path) == {
        "base": {"seed": 1},
        "model": {"seed": 1, "class_path": "a.B"},
        None: 2,
    }
    assert read_model_class(path) == "a.B"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"seed: 1\nmodel: !!python/object/apply:os.system ['touch ran']", "line 2: .*tag"),
        (b"seed: 1\nmodel: !!python/name:os.system", "line 2: .*tag"),
        (b"model: !mine {a: 1}", "line 1: .*tag"),
        (b"seed: 1\nmodel: a\0b\n", "line 2: the character U\\+0000"),
        (b"seed: 1\n\nmodel: \xff\n", "line 3: byte 0xff is not UTF-8"),
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"- a\n- b\n", "holds no settings"),
        (b"words", "holds no settings"),
        (b"a: 1\n---\nb: 2\n", "line 2: "),
        (b"a: [1, 2\nb: 3\n", "line 2: "),
        (b"a: 1\nb: 2\na: 3\n", "'a' stands twice, in lines 1 and 3"),
        (b"? [a]\n: 1\n", "line 1: "),
        (b"a: 2020-99-99\n", "cannot be read"),
        (b"a: " + b"9" * 5000 + b"\n", "cannot be read"),
        (b"a: " + b"[" * 100_000, "nested too deeply"),
        (b"a: " + b"{b: " * 5_000 + b"}" * 5_000, "nested too deeply"),
        (b"a: &a [*a]\n", "line 1: an alias stands for what it is part of"),
        (LAUGHS.encode(), "aliases stand for more than"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_file_that_is_no_config_is_refused_in_one_line(tmp_path, content, says):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        read_config(path)
    assert "\n" not in str(caught.value)
    assert re.search(r"config\.yaml", str(caught.value))


def test_a_config_without_a_model_says_so(tmp_path):
    path = tmp_path / "config.yaml"
    for content in ("model:\n", "model: [a]\n", "model: {class_path: 3}\n", "data: {}\n"):
        path.write_text(content)
        with pytest.raises(ValueError, match="does not say which model"):
            read_model_class(path)


def test_a_missing_config_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no config"):
        read_config(tmp_path / "config.yaml")
