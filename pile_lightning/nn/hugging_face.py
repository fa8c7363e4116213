"""Causal language models of Hugging Face's as networks: to be trained on, or imitated."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pile_lightning.checkpoint_settings import is_reading_checkpoint
from pile_lightning.nn import masks
from pile_lightning.nn.awaited import await_weights, will_follow
from pile_lightning.nn.model_folder import check_loaded, check_model_folder
from pile_lightning.nn.network import NetworkConfig

__all__ = ["HuggingFaceConfig", "HuggingFaceNetwork"]


class HuggingFaceNetwork(nn.Module):
    """A causal language model of transformers', called as the networks here are.

    Args:
        model: The model.
        vocab_size: Ids that there are: logits of the rows beyond, which some vocabularies are
            padded with, are left out.
        max_seq_len: Longest sequence.
    """

    def __init__(self, model: nn.Module, *, vocab_size: int, max_seq_len: int) -> None:
        super().__init__()
        self.model = model
        self.vocab_size = vocab_size
        self.max_seq_len = max_seq_len

    def forward(
        self,
        input_ids: Tensor,
        *,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
    ) -> Tensor:
        """Compute the logits (batch, seq, vocab).

        Args:
            input_ids: Token ids (batch, seq).
            position_ids: Distance from the start of the document (batch, seq); None counts from 0.
            document_ids: The document of each position (batch, seq); None means one a row.
        """
        mask = None
        if document_ids is not None:
            causal = masks.causal(input_ids.shape[1], device=input_ids.device)
            mask = causal & masks.document(document_ids)  # four dimensions: it is taken as it is
        logits: Tensor = self.model(
            input_ids=input_ids, position_ids=position_ids, attention_mask=mask, use_cache=False
        ).logits
        return logits[..., : self.vocab_size]


@dataclass(frozen=True, kw_only=True)
class HuggingFaceConfig(NetworkConfig):
    """A causal language model that was trained elsewhere, and is trained on or imitated here.

    Its tokenizer has to be the data's: name the same folder as ``data.tokenizer``. Where a
    checkpoint of ours brings the weights, neither the folder nor the hub is asked any more.
    """

    model: str
    """Folder that ``save_pretrained`` has written, or name on the hub: what begins with / or . or ~
    is never looked for there."""
    architecture: dict[str, Any] = field(default_factory=dict)
    """What the model's own config.json says; read from there where it is left out."""

    def __post_init__(self) -> None:
        if not self.architecture:
            if is_reading_checkpoint():
                raise ValueError(
                    f"the checkpoint does not say which architecture {self.model!r} has, and "
                    f"loading one reads nothing else; take another checkpoint"
                )
            object.__setattr__(self, "architecture", self._read_architecture())

    @property
    def origin(self) -> str | None:
        """The folder or the name."""
        return self.model

    @property
    def is_on_hub(self) -> bool:
        """Whether it is to be looked for on the hub."""
        return not (self.model.startswith(("/", ".", "~")) or Path(self.model).exists())

    @property
    def num_ids(self) -> int:
        """Rows of its vocabulary, some of which may be there to make a round number."""
        return int(self._config().vocab_size)

    def _config(self) -> Any:
        from transformers import AutoConfig

        settings = dict(self.architecture)
        # where code of its own would be, which is not run
        settings.pop("auto_map", None)
        return AutoConfig.for_model(settings.pop("model_type"), **settings)

    @property
    def _folder(self) -> Path:
        return Path(self.model).expanduser()

    def _read_architecture(self) -> dict[str, Any]:
        from transformers import AutoConfig

        if not self.is_on_hub:
            if not (self._folder / "config.json").is_file():
                raise ValueError(
                    f"{self.model!r} is no folder of a Hugging Face model: it has no config.json; "
                    f"name one that save_pretrained has written"
                )
            check_model_folder(self._folder)
        try:
            config = AutoConfig.from_pretrained(
                self.model if self.is_on_hub else self._folder, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self.model!r} is neither a folder of a Hugging Face model nor one that the hub "
                f"gives ({_first_line(error)}); name another, or a folder that save_pretrained has "
                f"written"
            ) from None
        return {"model_type": config.model_type, **config.to_diff_dict()}

    def build(self, *, vocab_size: int, max_seq_len: int) -> HuggingFaceNetwork:
        """Make the network and read its weights, in float32.

        Raises:
            ValueError: Where the model has fewer ids, or a shorter context, than is asked for.
        """
        config = self._config()
        self._check(config, vocab_size=vocab_size, max_seq_len=max_seq_len)
        model, why = self._model(config)
        network = HuggingFaceNetwork(model, vocab_size=vocab_size, max_seq_len=max_seq_len)
        if why is not None:
            await_weights(network, why)
        return network.train()  # what is read comes in the other mode

    def _model(self, config: Any) -> tuple[nn.Module, str | None]:
        """Return the model, and why its weights mean nothing, where they do."""
        from transformers import AutoModelForCausalLM

        kind: Any = AutoModelForCausalLM  # whose methods have no types
        more: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "sdpa"}
        more["trust_remote_code"] = False  # None would ask on the terminal
        place = self.model if self.is_on_hub else self._folder
        remedy = "name where they lie, or go on from a checkpoint, which has them"
        if will_follow() or torch.get_default_device().type == "meta":
            why = f"the weights of {self.model!r} were to come from a checkpoint, and never came"
        elif not (self.is_on_hub or self._folder.exists()):
            why = f"there is no folder {place} any more, which has the weights; {remedy}"
        else:
            if not self.is_on_hub:
                check_model_folder(self._folder)
            read = {"config": config, "weights_only": True, "output_loading_info": True}
            try:
                model, info = kind.from_pretrained(
                    place, ignore_mismatched_sizes=True, **read, **more
                )
            except OSError as error:
                why = f"the weights of {place} cannot be read ({_first_line(error)}); {remedy}"
            except Exception as error:  # of each format its own
                raise ValueError(
                    f"the weights of {place} cannot be read as data ({_first_line(error)}); take a "
                    f"whole model in safetensors"
                ) from None
            else:
                check_loaded(model, info, name=self.model)
                return model, None
        return kind.from_config(config, **more), why

    def _check(self, config: Any, *, vocab_size: int, max_seq_len: int) -> None:
        if config.vocab_size < vocab_size:
            raise ValueError(
                f"{self.model!r} knows {config.vocab_size} token ids, and the data's tokenizer has "
                f"{vocab_size}; read the data by the model's own: data.tokenizer={self.model}"
            )
        context = getattr(config, "max_position_embeddings", None)
        if context is not None and context < max_seq_len:
            raise ValueError(
                f"{self.model!r} was made for {context} tokens, and rows are of {max_seq_len}; "
                f"choose data.seq_len={context} at most"
            )
        window = getattr(config, "sliding_window", None)
        if window is not None and window < max_seq_len:
            raise ValueError(
                f"{self.model!r} attends to the latest {window} tokens in some layers, which is "
                f"left to rows of no more than that, and rows are of {max_seq_len}; choose "
                f"data.seq_len={window} at most"
            )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
