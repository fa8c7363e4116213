"""Makes the parts that are not there yet, in several processes, and judges what was bad in them."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pile_lightning.data.cache_errors import disk_full
from pile_lightning.data.part_job import PartJob
from pile_lightning.data.part_plan import PartPlan
from pile_lightning.data.parts import Part
from pile_lightning.data.policy import BadInput
from pile_lightning.data.progress import Progress
from pile_lightning.data.tokenizers import Tokenizer
from pile_lightning.data.verified_files import find_damage
from pile_lightning.data.workers import run_jobs

__all__ = ["MadeParts", "make_parts"]


@dataclass(frozen=True, kw_only=True)
class MadeParts:
    """The parts of each source, in order, with what was bad."""

    parts: list[list[Part]]
    """Of each source."""
    bad: list[BadInput]
    """Of each source."""
    bytes_found: int
    """Bytes of text in the parts that were there already."""


def make_parts(
    plans: Sequence[Sequence[PartPlan]],
    *,
    tokenizer: Tokenizer,
    max_bad_fraction: float,
    folder: Path,
    unfinished: Path,
    num_proc: int,
    quiet: bool,
) -> MadeParts:
    """Return the parts of each source, after making those that are missing.

    Args:
        plans: Of each source, in order.
        tokenizer: What encodes the documents.
        max_bad_fraction: See ``BadInput``.
        folder: Where parts lie.
        unfinished: Folder on the same disk for files that are not whole.
        num_proc: Processes.
        quiet: Whether to show no progress.
    """
    named = {plan.name: plan for its_plans in plans for plan in its_plans}
    parts = _undamaged(_finished(named, folder), folder, quiet)
    bytes_found = sum(part.counts.num_bytes for part in parts.values())
    firsts = {its_plans[0].name for its_plans in plans if its_plans}
    missing = [plan for name, plan in named.items() if name not in parts]
    jobs = [
        PartJob(
            plan=plan,
            tokenizer=tokenizer,
            max_bad_fraction=max_bad_fraction,
            first=plan.name in firsts,
            folder=folder,
            unfinished=unfinished,
        )
        for plan in missing
    ]
    tallies = [_Tally(its_plans, max_bad_fraction) for its_plans in plans]
    progress = Progress([plan.num_bytes for plan in missing], quiet=quiet)

    def state() -> tuple[int, int, int | None]:
        # on the disk: a process may have finished one while another told of its error
        kept = _finished(named, folder).values()
        return len(kept), sum(part.num_bytes_stored for part in kept), progress.needed()

    try:
        results = run_jobs(jobs, num_proc=num_proc, on_report=progress.report)
        # closed at once, also by an error: a traceback would keep the processes
        with disk_full(folder.parent, state), closing(results):
            for number, part in results:
                progress.finish(number)
                parts[part.name] = part
                for tally in tallies:
                    tally.advance(parts)
    finally:
        progress.close()
    for tally in tallies:
        tally.advance(parts)
        tally.bad.judge(at_end=True)
    return MadeParts(
        parts=[[parts[plan.name] for plan in its_plans] for its_plans in plans],
        bad=[tally.bad for tally in tallies],
        bytes_found=bytes_found,
    )


def _finished(names: Iterable[str], folder: Path) -> dict[str, Part]:
    loaded = {name: Part.load(folder, name) for name in names}
    return {name: part for name, part in loaded.items() if part is not None}


def _undamaged(parts: dict[str, Part], folder: Path, quiet: bool) -> dict[str, Part]:
    """Return the parts that hold what was written."""
    files = {
        folder / f"{name}.{end}": (name, checksum)
        for name, part in parts.items()
        for end, checksum in part.checksums.items()
    }
    damaged = find_damage({path: checksum for path, (_, checksum) in files.items()}, quiet=quiet)
    lost = {files[path][0] for path in damaged}
    return {name: part for name, part in parts.items() if name not in lost}


class _Tally:
    """Adds up the bad input of a source in the order of its parts, whichever ends first."""

    def __init__(self, plans: Sequence[PartPlan], max_bad_fraction: float) -> None:
        self.waiting = [plan.name for plan in reversed(plans)]
        source = plans[0].source.name if plans else ""
        self.bad = BadInput(source=source, max_bad_fraction=max_bad_fraction)

    def advance(self, parts: dict[str, Part]) -> None:
        """Judge as far as parts are there."""
        while self.waiting and self.waiting[-1] in parts:
            self.bad.merge(parts[self.waiting.pop()].bad)
            self.bad.judge()
