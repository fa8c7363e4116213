"""Several modules of one shape, computed as one."""

from pile_lightning.modules.stacked.alike import why_not_stack
from pile_lightning.modules.stacked.choose import StackChoice, choose_stack
from pile_lightning.modules.stacked.stack import Stack

__all__ = ["Stack", "StackChoice", "choose_stack", "why_not_stack"]
