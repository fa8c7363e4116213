"""The prompts of a file, and what followed them, for ``pile generate``."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from pile_lightning.callbacks import Continuation
from pile_lightning.cli.standard_streams import output_lost
from pile_lightning.whole_file import replace_file

__all__ = ["read_prompts", "write_continuations"]


def read_prompts(path: Path) -> list[str]:
    """Read the prompts of a file, one a line; empty lines are none.

    Args:
        path: Text, or JSON lines where the name ends in ``.jsonl``: a string a line, or an object
            with a "prompt".

    Raises:
        FileNotFoundError: Where there is no such file.
        ValueError: Where a line is no prompt, or the file has none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"prompts={str(path)!r} is no file; give one with a prompt a line")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start})") from None
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise ValueError(f"{path} has no prompts; write one a line")
    if path.suffix == ".jsonl":
        return [_parse(line, f"{path}:{number}") for number, line in lines]
    return [line.rstrip("\r") for _, line in lines]


def _parse(line: str, where: str) -> str:
    try:
        value: Any = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is no JSON ({error}); write a string or an object") from None
    if isinstance(value, dict):
        value = value.get("prompt")
    if not isinstance(value, str):
        raise ValueError(f'{where} has no prompt; write a string, or {{"prompt": "..."}}')
    return value


def write_continuations(
    found: Iterator[Continuation], prompts: Sequence[str], path: Path | None
) -> None:
    """Write a line of JSON for each prompt, in the order of the file, and tell the speed.

    Args:
        found: What followed each, in any order.
        prompts: The prompts.
        path: Where to; ``None`` for the screen.
    """
    began, num_tokens, written = time.monotonic(), 0, 0
    ready: dict[int, Continuation] = {}
    with _opened(path) as file, _bar(len(prompts), shown=path is not None) as bar:
        for each in found:
            num_tokens += each.num_tokens
            ready[each.prompt] = each
            rate = num_tokens / max(1e-9, time.monotonic() - began)
            bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
            bar.update()
            while written in ready:
                text = ready.pop(written).text
                line = {"prompt": prompts[written], "completion": text}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
                written += 1
            if path is None and output_lost() is not None:
                return
    seconds = time.monotonic() - began
    print(
        f"{written:,} prompts, {num_tokens:,} tokens in {seconds:.1f} s: "
        f"{num_tokens / max(1e-9, seconds):,.0f} tokens/s",
        file=sys.stderr,
    )


def _opened(path: Path | None) -> contextlib.AbstractContextManager[IO[Any]]:
    if path is None:
        return contextlib.nullcontext(sys.stdout)
    return replace_file(path, "w")


def _bar(total: int, *, shown: bool) -> Any:
    """Return a bar that shows on a terminal only, and only where no lines would break it."""
    return tqdm(total=total, desc="prompts", unit="", disable=None if shown else True)
