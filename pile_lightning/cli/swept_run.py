"""A finished run of several models, as a choice among them: what each was made with and reached."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pile_lightning.analysis import Setting, rank_settings
from pile_lightning.cli.environment_run import load_environment, read_scores
from pile_lightning.config_file import read_config
from pile_lightning.modules.environment.specs import MemberSpec, specs_of

__all__ = ["SweptRun", "read_swept_run"]


@dataclass(frozen=True, kw_only=True)
class SweptRun:
    """What there is to choose from."""

    config: Mapping[str, Any]
    """Of the run."""
    members: Mapping[str, Mapping[str, Any]]
    """The plain data of each member, by name."""
    rows: Sequence[Mapping[str, Any]]
    """Of each member its name, setting, score, seed, what was swept, and when it was stopped."""
    ranked: Sequence[Setting]
    """Settings, the best first."""
    scored_step: int
    """Step of the last validation."""
    vocab_size: int
    """Token ids of the text."""
    max_seq_len: int
    """Longest context."""
    is_coupled: bool
    """Whether members learnt from one another."""

    def spec(self, name: str) -> MemberSpec:
        """Return what a member is made with."""
        return specs_of({"members": {name: self.members[name]}}, name="the checkpoint")[name]

    def swept(self, name: str) -> dict[str, Any]:
        """Return what a sweep gave a member, by field."""
        return dict(self.members[name]["swept"])

    def choose(self, member: str | None) -> Setting:
        """Return the best setting, or that of a member.

        Raises:
            ValueError: Where there is no such member, or it did not train to the end.
        """
        if member is None:
            return self.ranked[0]
        if member not in self.members:
            raise ValueError(
                f"--member={member!r}: the run has none of that name; choose one of its ranking, "
                f"such as {self.ranked[0].names[0]}"
            )
        for setting in self.ranked:
            if member in setting.names:
                return setting
        raise ValueError(
            f"--member={member!r} did not train to the end, or has no score; choose another, or "
            f"leave --member out for the best"
        )


def read_swept_run(run: Path) -> SweptRun:
    """Read the folder of a run of an environment.

    Raises:
        FileNotFoundError: Where it is no run, or has no checkpoint.
        ValueError: Where it is of one model, not at its end, or without a score.
    """
    checkpoint = load_environment(
        run,
        needs="there is no best among several settings to carry",
        like="configs/environment/sweep.yaml",
    )
    config = read_config(run / "config.yaml")
    step, last = checkpoint["global_step"], config["trainer"]["max_steps"]
    if step < last:
        raise ValueError(
            f"{run} has come to step {step} of {last}, so that its ranking is not the last; go on "
            f"first: python train.py fit --config {run}/config.yaml --ckpt_path last"
        )
    settings, fates = checkpoint["hyper_parameters"], checkpoint["environment"]["members"]
    scores = read_scores(run, settings["members"])
    scored = max(score[0] for score in scores.values() if score is not None)
    rows = [
        {
            "name": name,
            "seed": spec["seed"],
            "swept": dict(spec["swept"]),
            "setting": {key: spec[key] for key in ("class_path", "init_args", "gradient_clip_val")},
            "bits_per_byte": score[1] if score is not None and score[0] == scored else math.nan,
            "stopped_step": fates[name]["fate"]["stopped_step"],
        }
        for name, spec in settings["members"].items()
        for score in [scores[name]]
    ]
    ranked = rank_settings(rows)
    if not ranked:
        raise ValueError(
            f"no member of {run} trained to the end with a finite score, so that there is none to "
            f"carry; look at its ranking, and try lower learning rates"
        )
    return SweptRun(
        config=config,
        members=settings["members"],
        rows=rows,
        ranked=ranked,
        scored_step=scored,
        vocab_size=settings["vocab_size"],
        max_seq_len=settings["max_seq_len"],
        is_coupled=bool(settings["coupling"]),
    )
