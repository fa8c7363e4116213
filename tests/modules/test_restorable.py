"""What a module is made with comes back from a checkpoint, or is refused when it is made."""

import enum
import functools
import inspect
import math
import sys
from collections import OrderedDict
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from lightning import LightningModule
from torch import nn

from pile_lightning import CausalLM, DecoderConfig, Environment, NetworkConfig
from pile_lightning.config import as_written, check_plain, from_plain, to_plain
from pile_lightning.modules.restorable import SET_BY_CLASS
from pile_lightning.optim import AdamWConfig, MuonConfig

SMALL = DecoderConfig(d_model=16, num_layers=1)
DATA = {"vocab_size": 20, "max_seq_len": 8}


class Kind(enum.StrEnum):
    A = "a"
    B = "b"


class Point(NamedTuple):
    x: int
    y: int


class Outer:
    @dataclass(frozen=True)
    class Inner:
        width: int = 3


@dataclass(frozen=True, kw_only=True)
class Rich:
    kind: Kind = Kind.B
    layers: list[Outer.Inner] = field(default_factory=lambda: [Outer.Inner(width=4)])
    pair: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Doubles:
    width: int = 2

    def __post_init__(self):
        object.__setattr__(self, "width", self.width * 2)


@dataclass
class Init:
    width: int
    factor: InitVar[int]

    def __post_init__(self, factor):
        self.width *= factor


class Takes(CausalLM):
    def __init__(self, value=None, **settings):
        super().__init__(**{"network": SMALL, **settings})
        self.value = value


class FixesNetwork(CausalLM):
    def __init__(self, width=16, **settings):
        width = width * 2
        super().__init__(DecoderConfig(d_model=width, num_layers=1), **settings)
        self.width = width


class FixesFixed(FixesNetwork):
    def __init__(self, lr=0.1, **settings):
        super().__init__(8, optimizer=AdamWConfig(lr=lr), **settings)


class Saves(CausalLM):
    def __init__(self, gamma=1.0, **settings):
        super().__init__(**settings)
        self.save_hyperparameters()


class SavesFirst(Saves):
    def __init__(self, network=SMALL, *, delta, **settings):
        self.save_hyperparameters("delta")
        super().__init__(2.0, network=network, **settings)


class Renames(CausalLM):
    def __init__(self, network="small", **settings):
        super().__init__({"small": SMALL}[network], **settings)


class WithModule(CausalLM):
    def __init__(self, head, **settings):
        super().__init__(SMALL, **settings)
        self.head = head


class LeavesOut(WithModule):
    def __init__(self, head, **settings):
        super().__init__(head, **settings)
        self.save_hyperparameters(ignore=["head"])


class GivesModule(WithModule):
    def __init__(self, **settings):
        super().__init__(nn.Linear(2, 2), **settings)


class ByPosition(CausalLM):
    def __init__(self, gamma=1.0, /, *more, **settings):
        super().__init__(SMALL, **settings)


def checkpoint_of(model, path):
    """Write what Lightning would of a module: its weights and hyper-parameters."""
    model.configure_model()
    torch.save(
        {
            "state_dict": model.state_dict(),
            "pytorch-lightning_version": "2.6.0",
            LightningModule.CHECKPOINT_HYPER_PARAMS_KEY: dict(model.hparams),
            "environment": None,
        },
        path,
    )
    return path


def loaded(model, tmp_path, **more):
    return type(model).load_from_checkpoint(checkpoint_of(model, tmp_path / "a.ckpt"), **more)


def same(one, two):
    if isinstance(one, torch.Tensor | np.ndarray):
        return one.dtype == two.dtype and bool((one == two).all())
    return type(one) is type(two) and (one == two or (one != one and two != two))


VALUES = [
    None,
    True,
    3,
    "word",
    math.inf,
    math.nan,
    (1, (2, "three")),
    [1, (2,)],
    {"a": [1], "b": {}},
    {1: "one", None: "none", 2.5: 0},
    {Kind.A: 1, (1, 2): 3},
    OrderedDict(b=1, a=2),
    {1, 2},
    frozenset({1, 2}),
    Kind.B,
    Point(1, 2),
    Outer.Inner(7),
    Rich(),
    [Rich(kind=Kind.A), {"x": Rich()}],
    Path("a/b"),
    torch.bfloat16,
    torch.device("cpu"),
    np.arange(4, dtype=np.int16).reshape(2, 2),
    np.array([0.1, math.inf]),
    torch.tensor([0.1, 2.0], dtype=torch.bfloat16),
    {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
    {"class_path": f"{__name__}.Rich", "init_args": {}},
    [{"class_path": "unknown.module.Thing", "init_args": {"a": ()}}],
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{value}"[:40])
def test_a_value_of_any_of_these_kinds_comes_back(value, tmp_path):
    model = Takes(value, **DATA)
    assert same(model.value, value)
    again = loaded(model, tmp_path)
    assert same(again.value, value)
    assert to_plain(dict(again.hparams)) == to_plain(dict(model.hparams)) or value != value


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.int64(2), np.bool_(True)])
def test_a_number_of_numpys_becomes_one_of_pythons_before_anything_is_made_of_it(number, tmp_path):
    model = Takes([number], optimizer=MuonConfig(lr=number), **DATA)
    assert type(model.value[0]) is type(model.optimizer_config.lr) is type(number.item())
    assert loaded(model, tmp_path).optimizer_config == MuonConfig(lr=number.item())
    assert type(FixesFixed(lr=number, **DATA).optimizer_config.lr) is type(number.item())


def local():
    @dataclass(frozen=True)
    class Local:
        width: int = 1

    return Local()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (lambda x: x, "value: a function cannot be stored"),
        (functools.partial(max, 1), "value: a partial cannot be stored"),
        (nn.GELU, "value: a class cannot be stored"),
        (nn.GELU(), "value: a GELU cannot be stored"),
        (object(), "value: a object cannot be stored"),
        ([1, {"act": print}], r"value\[1\]\['act'\]: a builtin_function"),
        (np.zeros(10_001), "value: a ndarray of .*10,000"),
        (local(), "'.*<locals>.Local' is made inside a function"),
        (Doubles(), "value.width=4 becomes 8"),
        (Init(2, 3), "value could not be read back .*factor"),
    ],
)
def test_what_does_not_come_back_is_refused_in_one_line(value, why):
    with pytest.raises((TypeError, ValueError), match=why) as error:
        Takes(value, **DATA)
    said = str(error.value)
    assert "\n" not in said
    assert "Takes" in said
    assert "save_hyperparameters(ignore=['value'])" in said


@pytest.mark.parametrize(
    "make",
    [
        lambda: FixesNetwork(24, **DATA),
        lambda: FixesFixed(0.5, **DATA),
        lambda: Saves(2.0, network=SMALL, **DATA),
        lambda: SavesFirst(delta=3, **DATA),
        lambda: Renames(**DATA),
        lambda: GivesModule(**DATA),
        lambda: CausalLM(to_plain(SMALL), **DATA),
    ],
)
def test_a_sub_class_is_made_again_as_it_was(make, tmp_path):
    model = make()
    again = loaded(model, tmp_path)
    assert again.network_config == model.network_config
    assert again.optimizer_config == model.optimizer_config
    assert again.hparams == model.hparams
    assert getattr(again, "width", None) == getattr(model, "width", None)
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight)


def test_hyper_parameters_of_all_constructors_can_be_read():
    model = FixesFixed(0.5, **DATA)
    assert model.hparams.lr == model.hparams["lr"] == 0.5
    assert model.hparams.network["init_args"]["d_model"] == 16
    assert model.hparams[SET_BY_CLASS] == ["network", "optimizer", "schedule"]
    assert SavesFirst(delta=3, **DATA).hparams.gamma == 2.0
    assert model.hparams_initial == model.hparams


def test_settings_can_be_changed_when_a_checkpoint_is_loaded(tmp_path):
    assert loaded(CausalLM(SMALL, **DATA), tmp_path, z_loss=0.5).z_loss == 0.5
    again = loaded(FixesNetwork(24, **DATA), tmp_path, optimizer=AdamWConfig(lr=7.0))
    assert again.optimizer_config.lr == 7.0
    with pytest.raises(TypeError, match="network"):
        loaded(FixesNetwork(24, **DATA), tmp_path, network=SMALL)


def test_what_is_left_out_is_given_when_the_checkpoint_is_loaded(tmp_path):
    with pytest.raises(TypeError, match=r"head: a Linear cannot be stored"):
        WithModule(nn.Linear(2, 2), **DATA)
    model = LeavesOut(nn.Linear(2, 2), **DATA)
    assert "head" not in model.hparams
    again = loaded(model, tmp_path, head=nn.Linear(2, 2))
    assert torch.equal(again.head.weight, model.head.weight)
    with pytest.raises(TypeError, match=r"missing .* 'head'; give load_from_checkpoint"):
        loaded(model, tmp_path)


def test_arguments_without_a_name_are_refused():
    ByPosition(**DATA)
    with pytest.raises(TypeError, match="takes 'gamma' by position alone"):
        ByPosition(2.0, **DATA)


def test_a_class_of_another_program_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(Rich, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Rich", Rich, raising=False)
    path = checkpoint_of(Takes(Rich(), **DATA), tmp_path / "a.ckpt")
    monkeypatch.delattr(sys.modules["__main__"], "Rich")
    with pytest.raises(ValueError, match=r"class of the program that made the checkpoint.*move it"):
        Takes.load_from_checkpoint(path)


def test_looking_a_class_up_imports_nothing(tmp_path, monkeypatch):
    (tmp_path / "bad_one.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for path in ("bad_one.Thing", "bad_one.Thing.Inner"):
        with pytest.raises(ValueError, match="not imported"):
            from_plain({"class_path": path, "init_args": {}})
    for path in ("os.system", "subprocess.Popen", "builtins.eval", "torch.nn.Linear"):
        with pytest.raises(ValueError, match="which is no config"):
            from_plain({"class_path": path, "init_args": {}})


def test_a_signature_is_that_of_the_constructor():
    assert list(inspect.signature(Takes).parameters) == ["value", "settings"]
    assert list(inspect.signature(CausalLM).parameters)[:2] == ["network", "vocab_size"]
    with pytest.raises(TypeError, match="CausalLM: missing a required argument: 'vocab_size'"):
        CausalLM(SMALL)


BASE = {"class_path": "CausalLM", "init_args": {"network": {"d_model": 16, "num_layers": 1}}}


class Sweep(Environment):
    def __init__(self, **settings):
        super().__init__(base=BASE, sweep={"optimizer.lr": [0.1, 0.2]}, **settings)


class Named(Environment):
    def __init__(self, note="", **settings):
        super().__init__(**settings)
        self.note = note


def test_members_of_any_class_and_setting_come_back(tmp_path):
    members = {"a": Takes({Kind.A: (1, Path("x"))}, **DATA), "b": FixesNetwork(8, **DATA)}
    environment = Environment(members, **DATA)
    path = checkpoint_of(environment, tmp_path / "a.ckpt")
    state = torch.load(path, weights_only=True)["hyper_parameters"]
    again = [Environment.read_arguments(state)["members"], environment.hparams["members"]]
    assert again[0] == again[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Environment, "on_load_checkpoint", lambda self, checkpoint: None)
        back = Environment.load_from_checkpoint(path)
        assert back.roster["a"].module.value == {Kind.A: (1, Path("x"))}
        assert back.roster["b"].module.network_config.d_model == 16
        sweep = Named("x", base=BASE, sweep={"optimizer.lr": [0.1, 0.2]}, **DATA)
        again = loaded(sweep, tmp_path)
    assert again.hparams == sweep.hparams
    assert again.note == "x"
    assert again.roster["lr=0.2"].module.optimizer_config.lr == 0.2
    with pytest.raises(TypeError, match="Sweep .* let its constructor take members"):
        Sweep(**DATA)


def test_a_config_file_says_names():
    plain = to_plain({"kind": Kind.A, "set": {1}, "rich": Rich(), "path": Path("a"), "n": {1: 2}})
    written = as_written(plain)
    assert (written["kind"], written["set"], written["path"]) == ("A", [1], "a")
    assert written["rich"]["init_args"]["kind"] == "B"


def test_a_config_of_a_network_comes_back_also_with_a_list_in_it():
    plain = to_plain(Lists(widths=[12]))
    check_plain(plain, of="network")
    assert from_plain(plain) == Lists(widths=[12])


@dataclass(frozen=True, kw_only=True)
class Lists(NetworkConfig):
    widths: list[int] = field(default_factory=lambda: [8])

    def build(self, *, vocab_size, max_seq_len):
        return nn.Embedding(vocab_size, vocab_size)
