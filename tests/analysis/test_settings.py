"""The best setting is that of the lowest mean, among those that every seed brought to the end."""

from itertools import product

from pile_lightning.analysis import rank_settings, tried


def row(name, lr, loss, *, seed=0, stopped=None):
    return {
        "name": name,
        "setting": {"lr": lr},
        "swept": {"lr": lr, "seed": seed},
        "bits_per_byte": loss,
        "stopped_step": stopped,
    }


def test_the_mean_over_seeds_decides_and_not_the_luckiest():
    rows = [row("a", 0.1, 1.40), row("b", 0.1, 1.70), row("c", 0.2, 1.50), row("d", 0.2, 1.52)]
    first, second = rank_settings(rows)
    assert first.names == ("c", "d")
    assert abs(first.loss - 1.51) < 1e-9
    assert abs(first.spread - 0.02) < 1e-9
    assert second.names == ("a", "b")


def test_what_some_seed_did_not_bring_to_the_end_is_behind_all_that_did():
    rows = [
        row("a", 0.1, 1.2),
        row("b", 0.1, 1.3, stopped=7),
        row("c", 0.2, 1.5),
        row("d", 0.4, float("nan")),
        row("e", 0.8, 1.1, stopped=9),
    ]
    first, second = rank_settings(rows)
    assert (first.names, first.num_lost) == (("c",), 0)
    assert (second.names, second.num_lost) == (("a",), 1)
    assert rank_settings(rows[3:]) == []


def test_what_was_tried_is_alike_in_all_else():
    rows = [
        {"swept": {"lr": lr, "decay": decay, "seed": seed}}
        for lr, decay, seed in product((0.1, 0.2), (0, 1), (0, 1))
    ]
    rows = [r for r in rows if r["swept"] != {"lr": 0.2, "decay": 1}] + [{"swept": {}}]
    best = {"lr": 0.1, "decay": 1, "seed": 0}
    assert tried(rows, "lr", best) == [0.1, 0.2]
    assert tried(rows[:2], "lr", {**best, "decay": 0}) == [0.1]
    assert tried(rows, "decay", best) == [0, 1]
