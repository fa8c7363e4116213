"""Prepared rows are used again only where the code that makes the documents is the same."""

import os
import subprocess
import sys
from importlib import import_module, invalidate_caches
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FILES = {
    "helpers.py": """
import re
SEPARATOR = " "
UNUSED = 1

def clean(text):
    return strip(re.sub("x+", SEPARATOR, text))

def strip(text):
    return text.strip()

def unrelated(text):
    return text
""",
    "base.py": """
from pile_lightning import TextData

class Base(TextData):
    def number(self, n):
        return n * n
""",
    "mine.py": """
import helpers
from base import Base
from helpers import clean
from pile_lightning.data import Document

COUNTS = {"all": 40, "kinds": {"b", "a", "c"}}

def template():
    word = "squared"
    def fill(n, m):
        return f"{n} {word} is {m}"
    return fill

FILL = template()

class Squares(Base):
    def documents(self):
        for n in range(COUNTS["all"]):
            yield Document(clean(FILL(n, self.number(n))), f"number {n}")
""",
}
PRINT = """
from mine import Squares
print(Squares(tokenizer="byte", seq_len=8, batch_size=2).data_fingerprint())
"""


def write(folder, **changes):
    """Write the files with words of them changed."""
    for name, text in FILES.items():
        old, new = changes.get(name.removesuffix(".py"), ("", ""))
        assert old in text
        (folder / name).write_text(text.replace(old, new) if old else text)


def fingerprint(folder, **changes):
    """Return the fingerprint, with words of the files changed and their modules read anew."""
    write(folder, **changes)
    names = [name.removesuffix(".py") for name in FILES]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        for name in names:
            patch.delitem(sys.modules, name, raising=False)
        invalidate_caches()
        squares = import_module("mine").Squares
        found = squares(tokenizer="byte", seq_len=8, batch_size=2).data_fingerprint()
        for name in names:
            patch.delitem(sys.modules, name)
    return found


def fingerprint_of_a_process(folder, *, seed):
    """Return the fingerprint that a fresh process finds."""
    write(folder)
    environment = {
        **os.environ,
        "PYTHONHASHSEED": seed,
        "PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", PRINT],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return fingerprint(tmp_path_factory.mktemp("code"))


@pytest.mark.parametrize(
    "change",
    [
        {"helpers": ("x+", "y+")},
        {"helpers": ("text.strip()", "text.lstrip()")},
        {"helpers": ('SEPARATOR = " "', 'SEPARATOR = "_"')},
        {"base": ("n * n", "n * n * n")},
        {"mine": ('"all": 40', '"all": 41')},
        {"mine": ('word = "squared"', 'word = "times itself"')},
    ],
    ids=["helper", "helper's helper", "helper's constant", "base", "constant", "closure"],
)
def test_a_change_in_what_makes_the_documents_shows(plain, tmp_path, change):
    assert fingerprint(tmp_path, **change) != plain


def test_other_code_and_other_processes_do_not_show(plain, tmp_path):
    assert fingerprint_of_a_process(tmp_path, seed="7") == plain
    assert fingerprint(tmp_path, helpers=("return text\n", "return text + text\n")) == plain
    assert fingerprint(tmp_path, helpers=("UNUSED = 1", "UNUSED = 2")) == plain
