"""Short rows first: the same tokens in shorter rows, up to the step in which a count is reached."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pile_lightning.batch import TokenBatch
from pile_lightning.data import ShortRowsConfig, StreamedText, TextData, TextModule
from pile_lightning.data.packing import SplitRows
from pile_lightning.data.short_rows import ShortRows
from tests.data.conftest import maker
from tests.data.streams import BYTES, START, Documents, stream

SHORT = ShortRowsConfig(parts=4, until_tokens=390)  # 24.4 rows of 16: the seventh step of four
KINDS = {"prepared": (TextData, {}), "streamed": (StreamedText, {"num_lanes": 16})}
MakeData = Callable[..., TextModule]


@pytest.fixture(params=KINDS)
def make_data(request: pytest.FixtureRequest, folder: Path, cache: Path) -> MakeData:
    kind, own = KINDS[request.param]
    return maker(kind, folder, cache, batch_size=4, **own)


def batches_of(data: TextModule, count: int) -> list[TokenBatch]:
    return list(islice(data.train_dataloader(), count))


def by_document(data: TextModule) -> TextModule:
    """Let its tokenizer say nothing of the bytes of a token, as one that normalises."""
    data.store.exact_bytes = False
    if isinstance(data, StreamedText):
        tokenizer = data.tokenizer
        data.__dict__["_given_tokenizer"] = SimpleNamespace(
            encode_batch=tokenizer.encode_batch,
            start_id=tokenizer.start_id,
            fingerprint=tokenizer.fingerprint,
            token_num_bytes=None,
        )
    return data


@pytest.mark.parametrize("exact", [True, False])
def test_the_same_tokens_in_shorter_rows_until_the_count_is_reached(
    make_data: MakeData, exact: bool
) -> None:
    whole, short = make_data(), make_data(short_rows=SHORT)
    if not exact:
        by_document(whole), by_document(short)
    pairs = list(zip(batches_of(whole, 12), batches_of(short, 12), strict=True))
    assert [len(cut["input_ids"]) for _, cut in pairs] == [16] * 7 + [4] * 5
    for number, (batch, cut) in enumerate(pairs):
        shape = (-1, 4 if number < 7 else 16)
        assert cut["input_ids"].shape == cut["labels"].shape == batch["labels"].view(shape).shape
        for key in ("input_ids", "labels"):
            assert torch.equal(cut[key].view(4, 16), batch[key])  # type: ignore[literal-required]
        assert torch.equal(cut["num_bytes"].view(4, -1).sum(1), batch["num_bytes"])
        assert torch.equal(
            cut["domain"], batch["domain"].repeat_interleave(len(cut["domain"]) // 4)
        )
        starts = cut["position_ids"] == 0
        opens = cut["input_ids"] == 256
        opens[:, 0] = True
        assert torch.equal(starts, opens)
        opens[:, 0] = False
        assert torch.equal(cut["document_ids"], opens.cumsum(1))


@settings(max_examples=50, deadline=None)
@given(
    domains=st.lists(st.lists(st.lists(st.integers(1, 39), min_size=1), max_size=8), min_size=1),
    seq_len=st.integers(1, 5),
    num_parts=st.integers(2, 4),
    exact=st.booleans(),
)
def test_parts_show_what_whole_rows_do(
    domains: list[Documents], seq_len: int, num_parts: int, exact: bool
) -> None:
    common: Any = {
        "streams": [stream(texts) for texts in domains],
        "start_id": START,
        "token_num_bytes": BYTES if exact else None,
    }
    whole = SplitRows(seq_len=seq_len * num_parts, **common)
    short = ShortRows(seq_len=seq_len, whole=whole, **common)
    rows = np.random.default_rng(0).permutation(whole.num_rows)
    batch, cut = whole.batch(rows), short.batch(short.parts_of(rows[:, None]).ravel())
    for key in ("input_ids", "labels"):
        assert torch.equal(cut[key].view(-1, seq_len * num_parts), batch[key])  # type: ignore[literal-required]
    assert torch.equal(cut["num_bytes"].view(-1, num_parts).sum(1), batch["num_bytes"])
    assert torch.equal(cut["domain"], batch["domain"].repeat_interleave(num_parts))


@pytest.mark.parametrize(("until_tokens", "steps"), [(1, 1), (64, 1), (65, 2), (128, 2), (129, 3)])
def test_the_step_in_which_the_count_is_reached_is_the_last(
    make_data: MakeData, until_tokens: float, steps: int
) -> None:
    short = ShortRowsConfig(parts=2, until_tokens=until_tokens)
    lengths = [batch["labels"].shape[1] for batch in batches_of(make_data(short_rows=short), 5)]
    assert lengths == [8] * steps + [16] * (5 - steps)


def test_accumulated_batches_of_a_step_are_of_one_length(make_data: MakeData) -> None:
    data: Any = make_data(short_rows=SHORT)
    counts = SimpleNamespace(processed=0)
    data.trainer = SimpleNamespace(
        distributed_sampler_kwargs={"num_replicas": 1, "rank": 0},
        world_size=1,
        accumulate_grad_batches=4,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        fit_loop=SimpleNamespace(
            epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(total=counts, current=counts))
        ),
        overfit_batches=0.0,
    )
    shapes = [tuple(batch["labels"].shape) for batch in batches_of(data, 40)]
    assert shapes == [(4, 4)] * 28 + [(1, 16)] * 12


def test_checkpoints_know_nothing_of_it(make_data: MakeData) -> None:
    plain, short = make_data(), make_data(short_rows=SHORT)
    assert plain.fingerprint() == short.fingerprint()
    assert plain.state_dict().keys() == short.state_dict().keys()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"parts": 1, "until_tokens": 9}, "short_rows.parts=1 cuts nothing; choose 2 or more"),
        ({"parts": 4, "until_tokens": 0}, "short_rows.until_tokens=0 ends no stage"),
        ({"parts": 4, "until_tokens": float("inf")}, "until_tokens=inf ends no stage"),
        ({"parts": 5, "until_tokens": 9}, "does not cut rows of seq_len=16 .* a divisor of 16"),
        ({"parts": 32, "until_tokens": 9}, "short_rows.parts=32 does not cut rows of seq_len=16"),
    ],
)
def test_settings_out_of_range(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextData(seq_len=16, short_rows=ShortRowsConfig(**numbers))


def test_whole_documents_are_not_cut() -> None:
    with pytest.raises(ValueError, match=r"packing='best_fit' keeps documents whole; choose pack"):
        TextData(seq_len=16, short_rows=SHORT, packing="best_fit")
    with pytest.raises(ValueError, match=r"packing='pad' is no way .* 'split' or 'best_fit'"):
        TextData(packing="pad")  # type: ignore[arg-type]
