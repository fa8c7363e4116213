"""A name from a file is a single part of a path, whatever the file says."""

import pytest

from pile_lightning.file_names import check_file_name


@pytest.mark.parametrize("name", ["a.ckpt", "lr=0.01,seed=1", "rank-00000.safetensors", "..a", "ä"])
def test_plain_names_are_taken(name):
    assert check_file_name(name, of="a file") == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../a", "a/b", "/a", "a\\b", "C:a", "a\0b", "a\nb", "a" * 300, None, 3, ["a"]],
)
def test_what_could_be_another_path_is_refused(name):
    with pytest.raises(ValueError, match="a file is called .* not a plain file name") as caught:
        check_file_name(name, of="a file")
    assert "\n" not in str(caught.value)
