"""What an environment's members are to be: from YAML's ``members``, ``base`` and ``sweep``."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pile_lightning.checkpoint_settings import arguments_of, reading_checkpoint
from pile_lightning.config import from_plain, to_plain
from pile_lightning.modules.base import LanguageModule
from pile_lightning.modules.environment.parse import FROM_DATA, find_class, nearest, parse_settings
from pile_lightning.modules.environment.sweep import check_name, sweep_settings
from pile_lightning.modules.environment.weights import settings_of, with_origin
from pile_lightning.nn import NetworkConfig, will_follow

__all__ = [
    "MemberSpec",
    "PlainDict",
    "PlainList",
    "check_takes_members",
    "complete_member",
    "member_specs",
    "specs_of",
]

# without types of what is in them: a parser of settings would make the objects that it names
PlainDict: TypeAlias = dict
PlainList: TypeAlias = list

_OWN = ("seed", "gradient_clip_val")
_KEYS = ("class_path", "init_args", *_OWN, "weights", "frozen", "swept")
_OF_RUN = ("data", "trainer")


@dataclass(frozen=True, kw_only=True)
class MemberSpec:
    """The class and the settings of a member."""

    kind: type[LanguageModule]
    settings: Mapping[str, Any]
    """What the class is made with, but for what comes from the data."""
    from_data: Mapping[str, int] = field(default_factory=dict)
    """What it asks of the data by itself."""
    seed: int | None = None
    """Of its weights and whatever else it draws; null for the run's."""
    gradient_clip_val: float | None = None
    """Largest norm of its gradients; null for the trainer's."""
    weights: str | None = None
    """Run or checkpoint whose weights it begins with."""
    frozen: bool = False
    """Whether it keeps its weights: it is scored and imitated, and does not train."""
    swept: Mapping[str, Any] = field(default_factory=dict)
    """Values that a sweep gave it, by field."""

    @property
    def origin(self) -> str | None:
        """Folder or name of what its weights come from, if they come from anywhere."""
        network = self.settings.get("network")
        return self.weights or (network.origin if isinstance(network, NetworkConfig) else None)

    def build(self, *, vocab_size: int, max_seq_len: int) -> LanguageModule:
        """Make the module."""
        return self.kind(**self.settings, vocab_size=vocab_size, max_seq_len=max_seq_len)

    def plain(self) -> dict[str, Any]:
        """Return plain data that gives the same spec again."""
        return {
            "class_path": f"{self.kind.__module__}.{self.kind.__qualname__}",
            "init_args": to_plain({**self.settings, **self.from_data}),
            "seed": self.seed,
            "gradient_clip_val": self.gradient_clip_val,
            "weights": self.weights,
            "frozen": self.frozen,
            "swept": to_plain(dict(self.swept)),
        }


def member_specs(
    members: Mapping[str, Any] | None,
    base: Mapping[str, Any] | None,
    sweep: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]] | None,
) -> dict[str, MemberSpec]:
    """Return the members by name.

    Args:
        members: For each name a ``class_path`` with ``init_args``, and perhaps ``seed`` and
            ``gradient_clip_val``; or a module, whose settings are taken.
        base: What all members of a sweep have, in the same form.
        sweep: What they differ in: see :func:`sweep_settings`.

    Raises:
        ValueError: For no members, two of one name, or settings that there are not.
    """
    if (base is None) != (sweep is None):
        given, missing = ("base", "sweep") if sweep is None else ("sweep", "base")
        raise ValueError(f"{given} is given without {missing}; a sweep needs both")
    specs = {
        check_name(name): _spec(f"member {name!r}", member, {})
        for name, member in (members or {}).items()
    }
    if base is not None and sweep is not None:
        for name, changes in sweep_settings(sweep).items():
            if name in specs:
                raise ValueError(
                    f"two members have the name {name!r}, one of members and one of the sweep; "
                    f"rename the first"
                )
            specs[check_name(name)] = _spec("sweep", base, changes)
    if not specs:
        raise ValueError("an environment needs members; name some, or give base and sweep")
    if all(spec.frozen for spec in specs.values()):
        raise ValueError(
            f"all members ({', '.join(specs)}) are frozen, and there is nothing to train; let one "
            f"train, or score them by `validate` from their own runs"
        )
    return specs


def check_takes_members(kind: type, given: Collection[str]) -> None:
    """Refuse a sub-class of the environment that takes nothing that says who its members are.

    Args:
        kind: The class.
        given: Names of the arguments of its constructor.

    Raises:
        TypeError: For such a class.
    """
    if not {"members", "base", "sweep"}.intersection(given):
        raise TypeError(
            f"{kind.__name__} could not be loaded from its checkpoint, which says who the members "
            f"are; let its constructor take members, or base and sweep, perhaps with defaults, and "
            f"hand them on"
        )


def complete_member(name: str, member: Any, *, checkpoint: str | None = None) -> Any:
    """Return plain data that says what a member is, also when its weights lie elsewhere by then.

    Args:
        name: Its name.
        member: Plain data; what has its weights from nowhere is returned as it is.
        checkpoint: Where a run that goes on finds what the member was, if its weights are gone.

    Raises:
        FileNotFoundError: For weights that are gone, where no checkpoint knows them.
        ValueError: For settings that there are not.
    """
    try:
        spec = _spec(f"member {name!r}", member, {})
        return member if spec.origin is None else spec.plain()
    except FileNotFoundError:
        known = {} if checkpoint is None else specs_of(settings_of(checkpoint), name=checkpoint)
        if name not in known:
            raise
        return known[name].plain()


def specs_of(settings: Mapping[str, Any], *, name: str) -> dict[str, MemberSpec]:
    """Return the members in the settings of an environment's checkpoint; none if it has none.

    Args:
        settings: The settings.
        name: What to call the checkpoint in an error.

    Raises:
        ValueError: For names that could not be a folder's, and what is not imported.
    """
    members = settings.get("members") or {}
    if not isinstance(members, Mapping):
        raise ValueError(f"{name} has members that are no mapping; take another checkpoint")
    with reading_checkpoint():
        return {
            check_name(member): _spec(f"{name}: member {member!r}", plain, {})
            for member, plain in members.items()
        }


def _spec(of: str, member: Any, changes: Mapping[str, Any]) -> MemberSpec:
    is_made = False
    if isinstance(member, LanguageModule):
        member = to_plain(
            {
                "class_path": f"{type(member).__module__}.{type(member).__qualname__}",
                "init_args": arguments_of(member.hparams),
                "frozen": member.network is not None
                and not any(parameter.requires_grad for parameter in member.parameters()),
            }
        )
        is_made = True
    if isinstance(member, Mapping):
        member = with_origin(member, of=of)
    if not isinstance(member, Mapping) or not isinstance(member.get("class_path"), str):
        raise ValueError(f"{of} is {member!r}; say what it is by class_path and init_args")
    for key in member:
        if key not in _KEYS:
            raise ValueError(
                f"{of}: {key!r} is not a setting here; {nearest(key, list(_KEYS[:-1]))}"
            )
    init_args = to_plain(dict(member.get("init_args") or {}))
    for key in init_args:
        if "." in key:  # of the command line, which has put it in the place of all others
            raise ValueError(
                f"{of}: {key!r} cannot be set by itself on the command line; put the change into a "
                f"config file, or sweep over it: sweep.{key}"
            )
    for name in changes:
        if name.partition(".")[0] in _OF_RUN:
            raise ValueError(
                f"{of}: {name!r} is the run's: all members read the same rows, in one order, "
                f"under one trainer; sweep over what a member has, such as seed or optimizer.lr, "
                f"and give each {name} a run of its own"
            )
    own = {name: member.get(name) for name in _OWN}
    own |= {name: value for name, value in changes.items() if name in _OWN}
    kind = find_class(member["class_path"], of=of)
    from_data = {name: init_args.pop(name) for name in FROM_DATA if name in init_args}
    spec = MemberSpec(
        kind=kind,
        settings=from_plain(init_args)
        if is_made
        else parse_settings(
            kind,
            init_args,
            {k: v for k, v in changes.items() if k not in _OWN},
            of=of,
        ),
        from_data=from_data,
        seed=_number(own["seed"], int, f"{of}: seed"),
        gradient_clip_val=_number(own["gradient_clip_val"], float, f"{of}: gradient_clip_val"),
        weights=member.get("weights"),
        frozen=_truth(member.get("frozen"), f"{of}: frozen"),
        swept=dict(changes) or dict(member.get("swept") or {}),
    )
    if spec.frozen and not (is_made or will_follow()):
        _check_frozen(spec, of)
    return spec


def _check_frozen(spec: MemberSpec, of: str) -> None:
    if spec.origin is None:
        raise ValueError(
            f"{of} is frozen, and has nowhere its weights from; name the folder of a run or a "
            f"Hugging Face model: weights: runs/teacher"
        )
    for name in _OWN:
        if getattr(spec, name) is not None:
            raise ValueError(f"{of} is frozen, and {name} would say nothing of it; leave it out")


def _truth(value: Any, what: str) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise ValueError(f"{what}={value!r} is neither true nor false; give one of them")


def _number(value: Any, kind: type, what: str) -> Any:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{what}={value!r} is no number; give one")
    try:
        number = kind(value)
    except ValueError:
        raise ValueError(f"{what}={value!r} is no {kind.__name__}; give one") from None
    if number < 0 or (kind is int and number != float(value)):
        raise ValueError(f"{what}={value!r}: give a {kind.__name__} from 0 on")
    return number
