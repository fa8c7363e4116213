"""Each member's own checkpoint, cut out of the environment's, as it would have saved it alone."""

from collections.abc import Mapping
from typing import Any

from pile_lightning.modules.environment.sweep import check_name
from pile_lightning.optim import part_of_optimizer, part_of_schedule, put_back

__all__ = ["split_checkpoint"]


def split_checkpoint(checkpoint: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return by name what each member needs to be loaded, and to go on, alone.

    Tensors are those of the checkpoint, not copies.

    Args:
        checkpoint: Of an environment.

    Raises:
        ValueError: For a checkpoint of something else.
    """
    if "environment" not in checkpoint:
        raise ValueError(
            "the checkpoint is not of an environment, and has no members; it is an ordinary one "
            "already"
        )
    settings = checkpoint["hyper_parameters"]
    found: dict[str, dict[str, Any]] = {}
    first_group = 0
    for name, spec in settings["members"].items():
        check_name(name)
        prefix = f"members.{name.replace('.', '_')}."
        own = {
            **checkpoint,
            "state_dict": {
                key.removeprefix(prefix): value
                for key, value in checkpoint["state_dict"].items()
                if key.startswith(prefix)
            },
            "hyper_parameters": {
                "vocab_size": settings["vocab_size"],
                "max_seq_len": settings["max_seq_len"],
                **spec["init_args"],
            },
        }
        state = checkpoint["environment"]["members"][name]
        own["token_mean"], fate = state.get("token_mean"), state["fate"]
        scores = {"scored_step": fate["scored_step"]}
        if fate["scored_step"] is not None:
            scores |= {f"val/{score}": fate[score] for score in ("loss", "bits_per_byte")}
        summary = checkpoint.get("summary", {})
        # the losses there are those of the best member
        kept = {key: value for key, value in summary.items() if "/" not in key}
        own["summary"] = kept | scores
        del own["environment"]
        if checkpoint.get("optimizer_states"):
            joint = checkpoint["optimizer_states"][0]
            count = checkpoint["environment"]["num_groups"].get(name, 0)  # none of one frozen
            groups = range(first_group, first_group + count)
            part = part_of_optimizer(joint, groups)
            left_out = checkpoint["environment"]["left_out"].get(name)
            own["optimizer_states"] = [put_back(part, left_out) if left_out else part]
            schedule = checkpoint["lr_schedulers"][0]
            own["lr_schedulers"] = [part_of_schedule(schedule, groups)]
            first_group = groups.stop
        found[name] = own
    return found
