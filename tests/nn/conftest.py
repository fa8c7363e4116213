from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def _seeded_and_single_threaded() -> Iterator[None]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on tensors this small a second thread costs more than it gives
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def perturb() -> Callable[[nn.Module], nn.Module]:
    """Give every parameter a value that matters: gains of 1 and projections of 0 hide faults."""

    def perturbed(network: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in network.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.2 * noise if parameter.ndim == 1 else 0.1 * noise)
        return network.eval()

    return perturbed
