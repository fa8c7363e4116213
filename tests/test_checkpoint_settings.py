"""Settings from a checkpoint name classes, and neither they nor a later parser import any."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from pile_lightning import CausalLM, DecoderConfig, LanguageModule
from pile_lightning.checkpoint_settings import (
    check_checkpoint_settings,
    find_imported,
    hyper_parameters,
    is_reading_checkpoint,
    reading_checkpoint,
)
from pile_lightning.nn import NetworkConfig, RopeConfig

NAMED = "payload_of_settings.X"
CONFIG = {"class_path": NAMED, "init_args": {}}
JSON = '{"class_path": "payload_of_settings.X", "init_args": {}}'


@dataclass(frozen=True, kw_only=True)
class ManyKinds(NetworkConfig):
    """Fields of all kinds."""

    anything: Any = None
    by_name: dict[str, Any] = field(default_factory=dict)
    text_or_config: str | RopeConfig = ""
    config_or_text: RopeConfig | str = ""
    function: Callable[[], None] | None = None
    several: tuple[RopeConfig, ...] = ()
    number: float | None = 0.5
    folder: str = "runs/a.b"
    kind: Literal["a.b", "c"] = "c"

    def build(self, **sizes: int) -> Any:
        raise NotImplementedError


class Widened(CausalLM):
    """Hands its settings on."""

    def __init__(self, *args: Any, width: int = 3, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


def network(**init_args: Any) -> dict[str, Any]:
    return {"network": {"class_path": f"{__name__}.ManyKinds", "init_args": init_args}}


def checked(settings: dict[str, Any], kind: type = CausalLM) -> dict[str, Any]:
    return check_checkpoint_settings(kind, settings, of="last.ckpt")


def test_settings_of_every_kind_that_modules_store_are_taken():
    configs = [DecoderConfig(d_model=16, num_layers=1), ManyKinds(anything="d12", folder="a.b")]
    for config in [*configs, ManyKinds(by_name={"torch_dtype": "float32"}, kind="a.b")]:
        stored = dict(CausalLM(config, vocab_size=8, max_seq_len=4).hparams)
        assert checked(stored) == stored
        assert checked(stored, Widened) == stored


@pytest.mark.parametrize("name", [f"{NAMED}", "payload_of_settings", JSON, "class_path: a.B"])
@pytest.mark.parametrize(
    "place", ["text_or_config", "config_or_text", "function", "number", "kind", "several"]
)
def test_a_string_where_a_parser_would_import_it_is_refused(place, name):
    if place in ("text_or_config", "config_or_text") and name == "payload_of_settings":
        pytest.skip("a word, which no class is named by")
    value = [name] if place == "several" else name
    with pytest.raises(ValueError, match=f"last.ckpt: network.{place} is .*no such text"):
        checked(network(**{place: value}))
    with pytest.raises(ValueError, match="no such text"):
        checked({"network": name})
    with pytest.raises(ValueError, match="no such text"):
        checked({"optimizer": name}, Widened)


@pytest.mark.parametrize("value", [JSON, [JSON], {"a": JSON}, "class_path: a.B\ninit_args: {}"])
def test_text_that_reads_as_a_config_is_refused_where_anything_may_stand(value):
    for place in ("anything", "by_name"):
        with pytest.raises(ValueError, match="no such (text|value)"):
            checked(network(**{place: {"b": value} if place == "by_name" else value}))


@pytest.mark.parametrize(
    "value",
    [
        CONFIG,
        {"class_path": NAMED},
        {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "ran"]}},
        {"class_path": "subprocess.Popen"},
        {"class_path": "os.system", "init_args": {"command": "touch ran"}},
        {"class_path": "X", "init_args": {}},
        {"class_path": 3, "init_args": {}},
        {"class_path": "pile_lightning.nn.RopeConfig", "init_args": [1]},
        {"class_path": "pile_lightning.nn.RopeConfig", "init_args": {}, "dict_kwargs": {}},
        {"class_path": "transformers.models.gpt2.GPT2Model", "init_args": {}},
    ],
)
def test_only_configs_of_imported_classes_are_made(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for settings in ({"network": value}, network(anything=value), network(several=[value])):
        with pytest.raises(ValueError, match="last.ckpt|no config") as caught:
            checked(settings)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_arguments_that_a_config_has_not_are_one_line():
    with pytest.raises(ValueError, match="does not fit the configs of this program"):
        checked(network(nonsense=3))


def test_a_config_by_its_fields_alone_is_checked_as_one():
    assert checked(network(several=[{"base": 3.0}])) == network(several=[{"base": 3.0}])
    for wrong in ({"base": NAMED}, {"other": NAMED}):
        with pytest.raises(ValueError, match="no such (text|value)"):
            checked(network(several=[wrong]))


def test_deep_nesting_is_one_line():
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        checked(network(anything=deep))


def test_a_module_that_imports_what_it_is_asked_for_is_not_asked(monkeypatch):
    import transformers

    monkeypatch.delitem(sys.modules, "transformers.models.rwkv", raising=False)
    assert transformers is not None
    assert find_imported("transformers.models.rwkv.RwkvConfig") is None
    assert "transformers.models.rwkv" not in sys.modules


def test_what_says_how_to_make_an_object_is_left_out():
    stored = {"vocab_size": 3, "_instantiator": "os.system", "_class_path": "a.B"}
    assert hyper_parameters({"hyper_parameters": stored}, name="a") == {"vocab_size": 3}
    assert hyper_parameters({}, name="a") == {}
    for wrong in ([1], {1: 2}, "text"):
        with pytest.raises(ValueError, match=r"a.ckpt holds no settings"):
            hyper_parameters({"hyper_parameters": wrong}, name="a.ckpt")


def test_reading_ends_with_its_block():
    assert not is_reading_checkpoint()
    with reading_checkpoint():
        assert is_reading_checkpoint()
    assert not is_reading_checkpoint()
    assert LanguageModule is not None
