"""A module that does not compute with weights that never came."""

from pile_lightning.modules.restorable import RestorableModule
from pile_lightning.nn import check_weights

__all__ = ["AwaitsWeights"]


class AwaitsWeights(RestorableModule):
    """Refuses to begin where weights of a network in it could not be read, and no checkpoint came.

    Raises:
        FileNotFoundError: Then, whatever is begun.
    """

    def on_fit_start(self) -> None:
        """Look."""
        check_weights(self)

    def on_validation_start(self) -> None:
        """Look."""
        check_weights(self)

    def on_test_start(self) -> None:
        """Look."""
        check_weights(self)

    def on_predict_start(self) -> None:
        """Look."""
        check_weights(self)
