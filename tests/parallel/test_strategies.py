"""However a run is spread over processes and nodes, it is that of one process, and goes on so."""

import pytest

from tests.benchmarks.strategies import ON_ONE_DEVICE, WAYS, Trials, prove
from tests.parallel.two_nodes import why_no_namespaces

pytestmark = [pytest.mark.slow, pytest.mark.dist]

ON_NODES = {name: way for name, way in WAYS.items() if way.nodes == "namespaces"}


def check(trials):
    for way, found in prove(trials, every=False, on_run=lambda: None).items():
        assert found.loss < 1e-5, way
        assert found.norm < 1e-5, way
        assert found.score < 1e-5, way
        assert found.resumed_elsewhere < 1e-5, way
        assert found.resumed_exactly, way


def test_every_way_is_one_process_and_resumes_as_the_next(tmp_path, corpus):
    ways = {name: way for name, way in WAYS.items() if name not in ON_NODES}
    check(Trials(tmp_path, corpus, ways=ways))


def test_so_is_sharding_over_one_device(tmp_path, corpus):
    check(Trials(tmp_path, corpus, ways=ON_ONE_DEVICE))


def test_so_is_one_whose_blocks_are_compiled_and_recomputed(tmp_path, corpus):
    ways = {name: WAYS[name] for name in ("one process", "fsdp2 2", "tensor 2")}
    check(Trials(tmp_path, corpus, ways=ways, device="cpu-compiled"))


def test_so_are_two_nodes_with_a_cable_between_them(tmp_path, corpus):
    if (reason := why_no_namespaces()) is not None:
        pytest.skip(reason)
    check(Trials(tmp_path, corpus, ways={"one process": WAYS["one process"], **ON_NODES}))
