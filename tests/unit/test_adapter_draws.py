"""Adapters of peft as themselves: what a seed gives again stays behind and is proved on arrival."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import limosa
from limosa.errors import ConfigError, CorruptError, MissingExtraError
from limosa.exchange.adapter_folder import DRAWN_KEY, check_drawn, compress_adapter
from limosa.exchange.adapters import merge_adapter
from limosa.torch import refine

peft = pytest.importorskip("peft")
# peft warns of each projection that is not saved; that is what this is about.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(96, 160)
        self.down = nn.Linear(160, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x)))


def made(folder: Path, kind: str, dtype: torch.dtype = torch.float32, **settings):
    """A base and an adapter in *folder*, and the network that peft makes of both."""
    torch.manual_seed(0)
    network = Network().to(dtype)
    save_file(network.state_dict(), folder / "base.safetensors")
    known = peft.PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    model = peft.get_peft_model(network, known(target_modules=["up", "down"], **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder / "adapter")
    return model.eval()


SEEDED = {
    "VeRA": ("VERA", {"r": 16, "projection_prng_key": 7}, 2),
    "PVeRA": ("PVERA", {"r": 16}, 2),
    "RandLoRA": ("RANDLORA", {"r": 8, "projection_prng_key": 3}, 6),
    "sparse RandLoRA": ("RANDLORA", {"r": 8, "sparse": True}, 6),
    "very sparse RandLoRA": ("RANDLORA", {"r": 8, "very_sparse": True}, 6),
    "SHiRA": ("SHIRA", {"r": 4, "random_seed": 11}, 2),
}


@pytest.mark.parametrize("case", SEEDED)
def test_what_the_seed_gives_stays_behind_and_peft_loads_the_rest(case: str, tmp_path: Path):
    kind, settings, count = SEEDED[case]
    model = made(tmp_path, kind, **settings)
    done = compress_adapter(tmp_path / "adapter", tmp_path / "a.limosa")
    assert len(done.drawn) == count
    assert sum(done.drawn.values()) > 0.3 * done.bytes_in
    assert (tmp_path / "a.limosa").stat().st_size == done.encoded.bytes_out
    limosa.decompress(tmp_path / "a.limosa", tmp_path / "back")
    assert set(check_drawn(tmp_path / "back")) == set(done.drawn)
    base = Network()
    base.load_state_dict(load_file(tmp_path / "base.safetensors"))
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "back").eval()
    expected, found = model.state_dict(), loaded.state_dict()
    for name, tensor in expected.items():
        assert name not in found or torch.equal(found[name], tensor), name
    if kind != "PVERA":  # which draws its outputs
        x = torch.randn(5, 96)
        assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layers_in_half_precision_round_what_is_drawn(dtype: torch.dtype, tmp_path: Path):
    model = made(tmp_path, "VERA", dtype, r=16)
    assert len(compress_adapter(tmp_path / "adapter", tmp_path / "a.limosa").drawn) == 2
    limosa.decompress(tmp_path / "a.limosa", tmp_path / "back")
    loaded = peft.PeftModel.from_pretrained(Network().to(dtype), tmp_path / "back")
    assert torch.equal(loaded.base_model.vera_A["default"], model.base_model.vera_A["default"])


def test_a_projection_that_is_not_the_seeds_travels(tmp_path: Path):
    made(tmp_path, "VERA", r=16)
    stored = load_file(tmp_path / "adapter" / WEIGHTS)
    stored["base_model.vera_A"][0, 0] += 1
    save_file(stored, tmp_path / "adapter" / WEIGHTS)
    done = compress_adapter(tmp_path / "adapter", tmp_path / "a.limosa")
    # One of a pair alone would not load: save_projection is for both.
    assert done.drawn == {}
    limosa.decompress(tmp_path / "a.limosa", tmp_path / "back")
    assert check_drawn(tmp_path / "back") == []
    back = load_file(tmp_path / "back" / WEIGHTS)
    assert all(torch.equal(back[name], tensor) for name, tensor in stored.items())


def test_another_torch_is_noticed(tmp_path: Path):
    made(tmp_path, "VERA", r=16)
    compress_adapter(tmp_path / "adapter", tmp_path / "a.limosa")
    limosa.decompress(tmp_path / "a.limosa", tmp_path / "back")
    config = json.loads((tmp_path / "back" / CONFIG).read_text())
    config["projection_prng_key"] += 1  # as a generator with other numbers would
    (tmp_path / "back" / CONFIG).write_text(json.dumps(config))
    with pytest.raises(MissingExtraError, match="vera_A"):
        check_drawn(tmp_path / "back")


@pytest.mark.parametrize(
    "entry",
    ["[", "[1]", '{"a": 1}', '{"a": [1, 2, "F32"]}', '{"a": [0, 2, "F32", "00"]}',
     '{"vera_A": [1e400, 2, "F32", "00"]}'],
)  # fmt: skip
def test_a_bad_entry_is_refused(entry: str, tmp_path: Path):
    made(tmp_path, "VERA", r=16)
    tensors = load_file(tmp_path / "adapter" / WEIGHTS)
    save_file(tensors, tmp_path / "adapter" / WEIGHTS, {DRAWN_KEY: entry})
    with pytest.raises(CorruptError):
        check_drawn(tmp_path / "adapter")


def test_an_entry_of_a_huge_layer_is_refused(tmp_path: Path):
    made(tmp_path, "SHIRA", r=4, random_seed=1)
    tensors = load_file(tmp_path / "adapter" / WEIGHTS)
    entry = json.dumps({"a.shira_indices": [2**30, 2**30, "F32", "00"]})
    save_file(tensors, tmp_path / "adapter" / WEIGHTS, {DRAWN_KEY: entry})
    with pytest.raises(limosa.LimitError):
        check_drawn(tmp_path / "adapter")


def test_lossy_recoding_is_smaller_and_loads(tmp_path: Path):
    made(tmp_path, "SHIRA", r=4, random_seed=1)
    plain = compress_adapter(tmp_path / "adapter", tmp_path / "a.limosa")
    lossy = compress_adapter(
        tmp_path / "adapter", tmp_path / "b.limosa", quality=limosa.MaxError(0.005)
    )
    assert lossy.encoded.bytes_out < 0.6 * plain.encoded.bytes_out
    limosa.decompress(tmp_path / "b.limosa", tmp_path / "back")
    old = load_file(tmp_path / "adapter" / WEIGHTS)
    new = load_file(tmp_path / "back" / WEIGHTS)
    for name, tensor in new.items():
        torch.testing.assert_close(tensor, old[name], rtol=0, atol=0.005)


MERGED = {
    "SHiRA": ("SHIRA", {"r": 4, "random_seed": 11}),
    "IA3": ("IA3", {"feedforward_modules": ["down"]}),
    "VeRA": ("VERA", {"r": 16}),
}


@pytest.mark.parametrize("case", MERGED)
def test_the_update_gives_what_peft_merges(case: str, tmp_path: Path):
    kind, settings = MERGED[case]
    expected = made(tmp_path, kind, **settings).merge_and_unload().state_dict()
    base = load_file(tmp_path / "base.safetensors")
    for snr in (30.0, 60.0):
        written = merge_adapter(tmp_path / "base.safetensors", tmp_path / "adapter", snr=snr)
        rebuilt = refine.reconstitute(base, written.data)
        for name, tensor in expected.items():
            added = (tensor - base[name]).double()
            error = (rebuilt[name] - tensor).double()
            if not added.any():
                assert torch.equal(rebuilt[name], base[name])
                continue
            ratio = 10 * np.log10(float(added.square().sum() / error.square().sum()))
            assert ratio > snr - 2.5, name


def test_ia3_scales_the_bias_of_an_output(tmp_path: Path):
    expected = made(tmp_path, "IA3", feedforward_modules=["down"]).merge_and_unload()
    base = load_file(tmp_path / "base.safetensors")
    assert not torch.equal(expected.up.bias, base["up.bias"])
    assert torch.equal(expected.down.bias, base["down.bias"])


def test_what_cannot_be_merged_says_why(tmp_path: Path):
    made(tmp_path, "VERA", r=16)
    base = tmp_path / "base.safetensors"
    compress_adapter(tmp_path / "adapter", tmp_path / "a.limosa")
    limosa.decompress(tmp_path / "a.limosa", tmp_path / "back")
    with pytest.raises(ConfigError, match="save_projection"):
        merge_adapter(base, tmp_path / "back")
    save_file({"up.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="another base"):
        merge_adapter(tmp_path / "other.safetensors", tmp_path / "adapter")
    shutil.rmtree(tmp_path / "adapter")
    made(tmp_path, "SHIRA", r=4, random_seed=1)
    tensors = load_file(tmp_path / "adapter" / WEIGHTS)
    name = "base_model.model.up.shira_indices"
    for bad, match in ((-1, "below 0"), (10_000, "another base")):
        tensors[name][0, 0] = bad
        save_file(tensors, tmp_path / "adapter" / WEIGHTS)
        with pytest.raises((ConfigError, CorruptError), match=match):
            merge_adapter(base, tmp_path / "adapter")
    del tensors[name]
    save_file(tensors, tmp_path / "adapter" / WEIGHTS)
    with pytest.raises(CorruptError, match="shira_indices"):
        merge_adapter(base, tmp_path / "adapter")


def test_on_the_command_line(tmp_path: Path):
    made(tmp_path, "VERA", r=16)

    def limosa_(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "limosa.cli.main", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    done = limosa_("diff", "--adapter", "adapter", "-o", "a.limosa")
    assert done.returncode == 0, done.stderr
    assert "2 tensors stay behind" in done.stdout
    back = limosa_("decompress", "a.limosa", "-o", "back")
    assert back.returncode == 0, back.stderr
    assert "2 tensors are drawn" in back.stderr
    report = limosa_("diff", "--adapter", "adapter", "-o", "a.limosa", "--json")
    assert json.loads(report.stdout)["drawn"] == dict.fromkeys(
        ("base_model.vera_A", "base_model.vera_B"), 16 * 160 * 4
    )
    config = json.loads((tmp_path / "adapter" / CONFIG).read_text())
    assert config["save_projection"] is True, "the adapter itself is left as it was"
    assert limosa_("diff", "base.safetensors", "-o", "x").returncode == 2
    assert limosa_("diff", "-", "base.safetensors", "-o", "x").returncode == 2
