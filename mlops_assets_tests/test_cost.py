"""What a training costs: operations, utilisation, energy and money."""

import json
from pathlib import Path

import pytest

from mlops_assets.cost import Meter, Rates, Usage
from mlops_assets.training import compute_ceiling
from mlops_assets.training.compute_ceiling import find_ceiling
from mlops_assets.training.device import Device
from mlops_assets.training.flops import epoch_flops
from mlops_assets.training.model_shape import shape_of
from mlops_assets.training.spec import FinetuneSpec
from mlops_assets.training.workload import Workload

ROW = 32  # tokens
WORK = Workload(tokens=ROW, answers=ROW, squares=ROW**2, longest=ROW)
TINY = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "vocab_size": 96}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2}


# --- operations -------------------------------------------------------------------------


# peft 0.21 asks transformers 5.23 by a name that version 6 takes away.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize(
    ("settings", "trained"),
    [
        ({"adapter": "full"}, None),
        ({"rank": 8, "adapt_embeddings": False}, ["lm_head"]),
        ({"rank": 4, "adapt_embeddings": True, "train_head": False}, []),
    ],
)
def test_the_count_is_what_torch_counts(
    settings: dict[str, object], trained: list[str] | None
) -> None:
    """Beside torch's own counter, over a forward and a backward pass of one row.

    Eagerly, because the counter does not know the CPU's fused attention.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**TINY, tie_word_embeddings=False, attn_implementation="eager")
    spec = FinetuneSpec(**settings)
    model = LlamaForCausalLM(config)
    if trained is not None:
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        targets += ["embed_tokens"] if spec.adapt_embeddings else []
        lora = LoraConfig(r=spec.rank, target_modules=targets, modules_to_save=trained)
        model = get_peft_model(model, lora)
    ids = torch.arange(ROW)[None]
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    counted = epoch_flops(shape_of(config), spec, WORK)
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.06)


def test_frozen_weights_cost_two_thirds_and_short_answers_save_the_head() -> None:
    from transformers import LlamaConfig

    shape = shape_of(LlamaConfig(**TINY, tie_word_embeddings=False))
    full = epoch_flops(shape, FinetuneSpec(adapter="full"), WORK)
    adapter = FinetuneSpec(rank=1, adapt_embeddings=False, train_head=False)
    assert 0.66 < epoch_flops(shape, adapter, WORK) / full < 0.72
    unanswered = Workload(tokens=ROW, answers=0, squares=ROW**2, longest=ROW)
    saved = full - epoch_flops(shape, FinetuneSpec(adapter="full"), unanswered)
    assert saved == 6 * ROW * 64 * 96


# --- ceilings ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA L40", 181),
        ("NVIDIA A10G", 70),
        ("NVIDIA A10", 125),
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA GeForce RTX 4090", 165),
    ],
)
def test_a_listed_gpu_has_the_peak_of_its_data_sheet(
    tmp_path: Path, name: str, teraflops: int
) -> None:
    found = find_ceiling(Device("cuda", name, 1, 0), True, tmp_path / "ceilings.json")
    assert found.flops == teraflops * 1e12
    assert found.source.startswith("data sheet")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA RTX A1000",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
    ],
)
def test_a_gpu_with_a_similar_name_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(compute_ceiling, "measure_product", lambda *_: 5e12)
    found = find_ceiling(Device("cuda", name, 1, 0), True, tmp_path / "ceilings.json")
    assert found.flops == 5e12
    assert found.source.startswith("measured")


def test_an_unlisted_device_is_measured_once(tmp_path: Path) -> None:
    cache, device = tmp_path / "home" / "ceilings.json", Device("cpu", "A CPU", 1, 0)
    first = find_ceiling(device, False, cache)
    assert first.flops > 1e8
    assert "fp32" in first.source
    key = next(iter(json.loads(cache.read_text())))
    assert key.startswith("A CPU, ")
    cache.write_text(json.dumps({key: 12.0}))
    assert find_ceiling(device, False, cache).flops == 12.0


# --- energy and money -------------------------------------------------------------------


def _package(powercap: Path, number: int, joules: float, span: float = 262.0) -> Path:
    package = powercap / f"intel-rapl:{number}"
    (powercap / f"intel-rapl:{number}:0").mkdir(parents=True)  # a part, counted in the package
    package.mkdir()
    (package / "max_energy_range_uj").write_text(f"{span * 1e6:.0f}\n")
    (package / "energy_uj").write_text(f"{joules * 1e6:.0f}\n")
    return package / "energy_uj"


def test_counters_of_all_packages_are_read_and_may_start_anew(tmp_path: Path) -> None:
    first, second = _package(tmp_path, 0, 10.0), _package(tmp_path, 1, 250.0)
    meter = Meter(powercap=tmp_path)
    first.write_text(f"{15e6:.0f}\n")
    second.write_text(f"{8e6:.0f}\n")  # 12 to its end, 8 after it
    usage = meter.read()
    assert usage.joules == pytest.approx(25.0)
    assert usage.priced(Rates())["energy_source"] == "RAPL, the CPU packages"


def test_without_a_counter_the_energy_is_an_assumption_and_says_so(tmp_path: Path) -> None:
    assert Meter(powercap=tmp_path).read().joules is None
    hour = Usage(seconds=3600.0)
    assert hour.priced(Rates(price_per_hour=2.5, currency="EUR", watts=400)) == {
        "wall_seconds": 3600.0,
        "energy_kwh": pytest.approx(0.4),
        "energy_source": "400 W assumed",
        "cost": 2.5,
        "currency": "EUR",
    }


@pytest.mark.parametrize(
    ("counter", "joules"), [("RAPL, the CPU packages", 105.0), ("NVML, the GPU alone", None)]
)
def test_what_an_earlier_part_used_is_counted_too(
    tmp_path: Path, counter: str, joules: float | None
) -> None:
    package = _package(tmp_path, 0, 10.0)
    meter = Meter(powercap=tmp_path)
    meter.go_on_from(Usage(3600.0, 100.0, counter))
    package.write_text(f"{15e6:.0f}\n")
    used = meter.read()
    assert used.seconds > 3600
    assert used.joules == (joules and pytest.approx(joules))
