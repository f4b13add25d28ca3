"""The base as the device takes it, and the adapter on it: quantised or written out, saved and loaded afresh."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import save_and_load
from transformers import LlamaConfig

from tests.tiny_model import MODEL
from training_image import memory
from training_image import model as models
from training_image.checkpoints import adapter_state
from training_image.data.examples import IGNORED, Sample
from training_image.errors import InputError
from training_image.outputs import Outputs
from training_image.spec import Spec
from training_image.train import Hooks, Trainer, plan_steps

from .loop import hooks


def make_spec(**train: Any) -> Spec:
    return Spec.model_validate(
        {
            "job": "model-00000000",
            "model": {"id": str(MODEL)},
            "data": {"train": "train.jsonl"},
            "task": {"type": "classification"},
            "train": {"rank": 4, "epochs": 2.0, "batch_size": 4, "learning_rate": 3e-3, "method": "qlora"} | train,
        }
    )


def make_samples(count: int = 12) -> list[Sample]:
    generator = torch.Generator().manual_seed(7)
    made = []
    for index in range(count):
        length = int(torch.randint(6, 24, (1,), generator=generator))
        ids = [11, 12, 13, 14, *torch.randint(50, 500, (length,), generator=generator).tolist(), 2]
        made.append(Sample(str(index), ids, [IGNORED] * (len(ids) - 3) + ids[-3:]))
    return made


def train(base: Any, spec: Spec, tmp_path: Path) -> tuple[Any, list[float]]:
    """The trained model, and the losses of all steps."""
    lines: list[dict[str, float]] = []
    setting = models.choose(spec, tmp_path)
    trainer = Trainer(models.add_adapter(base, spec), make_samples(), setting, spec.train, 3e-3, pad=2)
    wiring: Hooks = hooks(tmp_path, lines)
    trainer.fit(plan_steps(spec.train, 12, None), wiring, trainer.restore(wiring.checkpoints))
    return trainer.model, [line["train/loss"] for line in lines]


def digest(model: Any) -> str:
    state = get_peft_model_state_dict(model)
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()


def test_four_bits_and_the_weights_they_stand_for_give_the_same_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec()
    setting = models.choose(spec, tmp_path)
    written_out, losses = train(models.load_base(setting), spec, tmp_path / "one")
    monkeypatch.setattr(models, "_fits_dequantised", lambda model: False)
    base = models.load_base(setting)
    assert any(type(module).__name__ == "Linear4bit" for module in base.modules())
    quantised, again = train(base, spec, tmp_path / "two")
    assert max(abs(one - two) for one, two in zip(losses, again, strict=True)) < 1e-5
    one, two = (get_peft_model_state_dict(model) for model in (written_out, quantised))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5


def test_the_same_seed_gives_the_same_adapter_and_another_does_not(tmp_path: Path) -> None:
    found = []
    for place, seed in enumerate((0, 0, 1)):
        spec = make_spec(seed=seed)
        found.append(digest(train(models.load_base(models.choose(spec, tmp_path)), spec, tmp_path / str(place))[0]))
    assert found[0] == found[1] != found[2]


def test_nothing_but_the_adapter_is_trained_and_that_in_single_precision(tmp_path: Path) -> None:
    spec = make_spec().model_copy(update={"model": make_spec().model.model_copy(update={"dtype": "bf16"})})
    base = models.load_base(models.choose(spec, tmp_path))
    assert base.get_input_embeddings().weight.dtype == torch.bfloat16  # not lifted
    model = models.add_adapter(base, spec)
    for name, weight in model.named_parameters():
        assert weight.requires_grad == ("lora_" in name), name
        assert not weight.requires_grad or weight.dtype == torch.float32
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    assert len(layers) == 7 * base.config.num_hidden_layers
    assert all(layer.scaling["default"] == pytest.approx(16 / 4**0.5) for layer in layers)  # rsLoRA


def test_the_adapter_from_its_files_is_the_one_in_memory(tmp_path: Path) -> None:
    spec = make_spec()
    setting = models.choose(spec, tmp_path)
    model, _ = train(models.load_base(setting), spec, tmp_path / "run")
    model.eval()
    ids = torch.tensor([[11, 12, 13, 60, 70, 80]])
    with torch.no_grad():
        before = model(ids).logits
        folder = Outputs(tmp_path / "out", known=False).adapter(model, models.load_tokenizer(setting), None, spec)
        after = models.load_adapter(models.load_base(setting), folder)(ids).logits
        again = models.load_adapter(model.unload(), folder)(ids).logits
        untuned = models.load_base(setting)(ids).logits
    assert float((before - after).abs().max()) == 0.0
    assert float((before - again).abs().max()) == 0.0
    assert float((before - untuned).abs().max()) > 0.0


@pytest.mark.parametrize("whole", [[], ["embed_tokens"], ["down_proj"]])
def test_the_size_of_the_adapter_is_known_beforehand(tmp_path: Path, whole: list[str]) -> None:
    spec = make_spec(modules_to_save=whole)
    base = models.load_base(models.choose(spec, tmp_path))
    told = models.adapter_bytes(base, spec.train.rank, whole)
    model = models.add_adapter(base, spec)
    assert told == trained_bytes(model)


def trained_bytes(model: Any) -> int:
    return sum(4 * weight.numel() for weight in model.parameters() if weight.requires_grad)


def test_weights_are_written_out_only_where_the_container_leaves_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = models.load_base(models.choose(make_spec(), tmp_path))
    monkeypatch.setattr(memory, "_CONTAINERS", ((tmp_path, "memory.max", "memory.current"),))
    (tmp_path / "memory.current").write_text("0")
    found = []
    for limit in ("max", 2 * 12 * models.parameters(base), 12 * models.parameters(base) // 2):
        (tmp_path / "memory.max").write_text(str(limit))
        found.append(models._fits_dequantised(base))
    assert found == [True, True, False]


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_a_model_that_cannot_be_loaded(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "broken"
    if content is not None:
        folder.mkdir()
        (folder / "config.json").write_text(content)
    spec = make_spec().model_copy(update={"model": make_spec().model.model_copy(update={"id": str(folder)})})
    with pytest.raises(InputError, match="cannot be loaded"):
        models.load_base(models.choose(spec, tmp_path))


def test_an_attention_whose_package_is_not_there(tmp_path: Path) -> None:
    spec = make_spec().model_copy(
        update={"model": make_spec().model.model_copy(update={"attention": "flash_attention_2"})}
    )
    with pytest.raises(InputError, match="FlashAttention2") as error:
        models.load_base(models.choose(spec, tmp_path))
    assert "model.attention: auto" in error.value.hint


def test_weights_that_were_cut_off(tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    folder.mkdir()
    for path in MODEL.iterdir():
        content = path.read_bytes()
        (folder / path.name).write_bytes(content[: len(content) // 2] if path.suffix == ".safetensors" else content)
    spec = make_spec().model_copy(update={"model": make_spec().model.model_copy(update={"id": str(folder)})})
    with pytest.raises(InputError, match="cannot be loaded"):
        models.load_base(models.choose(spec, tmp_path))


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora", "pissa", "loraplus"])
def test_every_variant_learns_and_its_files_are_what_was_trained(tmp_path: Path, variant: str) -> None:
    spec = make_spec(variant=variant)
    setting = models.choose(spec, tmp_path)
    base = models.load_base(setting)
    lines: list[dict[str, float]] = []
    model = models.add_adapter(base, spec)
    models.save_initial(model, tmp_path / "initial")
    trainer = Trainer(model, make_samples(), setting, spec.train, 3e-3, pad=2)
    wiring: Hooks = hooks(tmp_path, lines)
    trainer.fit(plan_steps(spec.train, 12, None), wiring, trainer.restore(wiring.checkpoints))
    assert lines[-1]["train/loss"] < lines[0]["train/loss"]
    ids = torch.tensor([[11, 12, 13, 60, 70, 80]])
    with torch.no_grad():
        before = trainer.model.eval()(ids).logits
        initial = tmp_path / "initial" if variant == "pissa" else None
        outputs = Outputs(tmp_path / "out", known=False)
        folder = outputs.adapter(trainer.model, models.load_tokenizer(setting), None, spec, initial)
        after = models.load_adapter(models.load_base(setting), folder)(ids).logits
    assert float((before - after).abs().max()) < 1e-4


def test_loraplus_gives_b_sixteen_times_the_rate_of_a(tmp_path: Path) -> None:
    spec = make_spec(variant="loraplus")
    setting = models.choose(spec, tmp_path)
    trainer = Trainer(models.add_adapter(models.load_base(setting), spec), make_samples(), setting, spec.train, 3e-3, 2)
    names = {id(weight): name for name, weight in trainer.model.named_parameters()}
    for group in trainer.optimizer.param_groups:
        for weight in group["params"]:
            assert group["factor"] == pytest.approx(16.0 if "lora_B" in names[id(weight)] else 1.0)


def test_modules_are_trained_whole_only_where_the_job_asks(tmp_path: Path) -> None:
    spec = make_spec(modules_to_save=["embed_tokens"])
    model = models.add_adapter(models.load_base(models.choose(spec, tmp_path)), spec)
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad and "lora_" not in name]
    assert trained
    assert all("embed_tokens" in name for name in trained)
    with pytest.raises(InputError, match="no module 'nothing'"):
        models.add_adapter(models.load_base(models.choose(spec, tmp_path)), make_spec(modules_to_save=["nothing"]))


def test_principal_components_are_not_taken_from_four_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_fits_dequantised", lambda model: False)
    spec = make_spec(variant="pissa")
    with pytest.raises(InputError, match="four bits"):
        models.add_adapter(models.load_base(models.choose(spec, tmp_path)), spec)


@pytest.mark.parametrize(("free", "method"), [(15, "qlora"), (79, "lora")])
def test_a_card_with_plenty_of_room_trains_in_16_bits_and_says_why(
    monkeypatch: pytest.MonkeyPatch, free: int, method: str
) -> None:
    """The shape of Llama-3.2-3B; what the driver says of its memory is the only thing that is put in its place."""
    shape = {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "vocab_size": 128256}
    heads = {"num_attention_heads": 24, "num_key_value_heads": 8}
    config = LlamaConfig(**shape, **heads, tie_word_embeddings=True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * 2**30, 80 * 2**30))
    why = f"3.21B weights, {free}.0 GiB free on the GPU"
    assert models._method(config, torch.device("cuda", 0), encoder=False) == (method, why)


@pytest.mark.parametrize(
    ("method", "encoder", "chosen", "why"),
    [
        ("auto", False, "qlora", "the default on a CPU"),
        ("auto", True, "lora", "an encoder is small"),
        ("lora", False, "lora", "as the job says"),
    ],
)
def test_every_method_has_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, encoder: bool, chosen: str, why: str
) -> None:
    monkeypatch.setattr(models, "is_encoder", lambda config: encoder)
    setting = models.choose(make_spec(method=method), tmp_path, labels=("yes", "no"))
    assert setting.method == chosen
    assert setting.why.startswith(why)


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_cards_without_bf16_units_take_fp16(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    """A T4, an A100, an H100."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert models._best_dtype(torch.device("cuda", 0)) == dtype


def test_the_adapter_is_kept_without_asking_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """peft's own setting asks for the config of a base that has a hub id, to see whether its vocabulary was resized."""
    asked: list[object] = []
    monkeypatch.setattr(save_and_load, "check_file_exists_on_hf_hub", lambda *given: asked.append(given))
    spec = make_spec()
    setting = models.choose(spec, tmp_path)
    model = models.add_adapter(models.load_base(setting), spec)
    model.peft_config["default"].base_model_name_or_path = "org/name"
    assert adapter_state(model)
    models.save_initial(model, tmp_path / "initial")
    outputs = Outputs(tmp_path / "out", known=False)
    folder = outputs.adapter(model, models.load_tokenizer(setting), None, spec, revision="0" * 40)
    assert not asked
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["revision"] == "0" * 40
    assert config["target_modules"] == sorted(config["target_modules"])
    assert len(config["target_modules"]) == 7


def test_flex_attention_is_refused_on_a_processor_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    spec = make_spec()
    named = spec.model_copy(update={"model": spec.model.model_copy(update={"attention": "flex_attention"})})
    with pytest.raises(InputError, match="flex_attention cannot be trained on a CPU") as error:
        models.choose(named, tmp_path)
    assert "model.attention: auto" in error.value.hint
