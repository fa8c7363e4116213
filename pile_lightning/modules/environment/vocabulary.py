"""Members that come from elsewhere read the stream's tokens: ids have to mean the same to them."""

import contextlib
from pathlib import Path
from typing import Protocol, runtime_checkable

from lightning import Trainer

from pile_lightning.modules.environment.member import Member
from pile_lightning.modules.environment.roster import Roster
from pile_lightning.nn import HuggingFaceConfig

__all__ = ["ComparesVocabulary", "check_vocabularies"]


@runtime_checkable
class ComparesVocabulary(Protocol):
    """A data module that can tell its tokenizer from another."""

    def vocabulary_difference(self, other: str) -> str | None:
        """Say an id that another tokenizer means otherwise by; None where there is none.

        Args:
            other: Folder or file of a tokenizer, or a name on the hub.
        """


def check_vocabularies(roster: Roster, trainer: Trainer) -> None:
    """Refuse members whose weights were trained on another vocabulary than the stream's.

    Where no tokenizer lies beside the weights, only the number of ids can be compared.

    Raises:
        ValueError: For such a member.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, ComparesVocabulary):
        return
    for member in roster:
        difference = _difference(member, data)
        if difference is not None:
            raise ValueError(
                f"member {member.name!r} was trained with another tokenizer than the data's: "
                f"{difference}; read the data by its own: data.tokenizer={member.spec.origin}"
            )


def _difference(member: Member, data: ComparesVocabulary) -> str | None:
    origin = member.spec.origin
    if origin is None:
        return None
    network = member.spec.settings.get("network")
    path = Path(origin).expanduser()
    if path.exists():
        # a checkpoint lies in a folder of the run's
        folder = path.parent.parent if path.suffix == ".ckpt" else path
        if (folder / "tokenizer.json").is_file():
            return data.vocabulary_difference(str(folder / "tokenizer.json"))
    elif not (isinstance(network, HuggingFaceConfig) and network.is_on_hub):
        return None  # gone: a run that goes on has looked before
    else:
        with contextlib.suppress(ValueError):
            return data.vocabulary_difference(origin)
    if isinstance(network, HuggingFaceConfig) and network.num_ids != member.module.vocab_size:
        return (
            f"it has {network.num_ids} ids, the data has {member.module.vocab_size}, and no "
            f"tokenizer.json lies beside its weights to tell which of them are meant"
        )
    return None
