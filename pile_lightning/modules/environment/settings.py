"""What an environment's settings say, before there is data: completed and judged."""

from typing import Any

from pile_lightning.config import from_plain
from pile_lightning.modules.environment.sharing import as_shares, check_shares
from pile_lightning.modules.environment.specs import (
    PlainDict,
    PlainList,
    complete_member,
    member_specs,
)
from pile_lightning.modules.environment.together import check_couplings

__all__ = ["KnowsSettings"]


class KnowsSettings:
    """Completes and judges settings that are plain data yet."""

    @staticmethod
    def check_settings(
        *,
        members: PlainDict | None = None,
        base: PlainDict | None = None,
        sweep: PlainDict | PlainList | None = None,
        coupling: PlainList | None = None,
        share: PlainList | None = None,
        **others: Any,
    ) -> None:
        """Raise what making an environment would, before there is any data.

        Args:
            members: As for the class.
            base: As for the class.
            sweep: As for the class.
            coupling: As for the class, as plain data.
            share: As for the class, as plain data.
            others: Not looked at.

        Raises:
            ValueError: For members that there cannot be, and what is between those that there are
                not.
        """
        specs = member_specs(members, base, sweep)
        check_couplings(from_plain(coupling or []), list(specs))
        check_shares(as_shares(share), {name: spec.frozen for name, spec in specs.items()})

    @staticmethod
    def complete_settings(
        *,
        members: PlainDict | None = None,
        base: PlainDict | None = None,
        checkpoint: str | None = None,
        **others: Any,
    ) -> dict[str, Any]:
        """Return the settings that change where members say by themselves what their weights say.

        So is a run's config complete, and the run goes on where the weights have moved.

        Args:
            members: As for the class.
            base: As for the class.
            checkpoint: What a run goes on from, if it does.
            others: Not looked at.

        Raises:
            FileNotFoundError: For weights that there are not.
            ValueError: For members that there cannot be.
        """
        found: dict[str, Any] = {}
        if members:
            found["members"] = {
                name: complete_member(name, member, checkpoint=checkpoint)
                for name, member in members.items()
            }
        if base:
            found["base"] = complete_member("base", base)
        return found
