"""Adapters of peft: merged into an update of their base, and coded as the folders that they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import limosa
from limosa.errors import ConfigError, CorruptError, LimitError
from limosa.exchange.adapters import merge_adapter
from limosa.torch import refine

peft = pytest.importorskip("peft")


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(60, 32)
        self.conv = nn.Conv1d(32, 48, 3, padding=1)
        self.up = nn.Linear(48, 64)
        self.down = nn.Linear(64, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.embed(x).transpose(1, 2)).transpose(1, 2)
        return self.down(torch.relu(self.up(x)))


def adapted(folder: Path, dtype: torch.dtype = torch.float32, **settings):
    """Base and adapter in *folder*, and the state dict that peft merges them to."""
    torch.manual_seed(0)
    network = Network().to(dtype)
    save_file(network.state_dict(), folder / "base.safetensors")
    config = peft.LoraConfig(r=4, lora_alpha=8, **{"target_modules": ["up", "down"], **settings})
    model = peft.get_peft_model(network, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    model.save_pretrained(folder / "adapter")
    return model.merge_and_unload().state_dict()


CASES = {
    "linear": {},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"up": 2}, "alpha_pattern": {"down": 3}},
    "embedding and convolution": {"target_modules": ["embed", "conv", "up"]},
    "saved modules": {"modules_to_save": ["down"], "target_modules": ["up"]},
}


@pytest.mark.parametrize("case", CASES)
def test_the_update_gives_what_peft_merges(case: str, tmp_path: Path):
    expected = adapted(tmp_path, **CASES[case])
    base = load_file(tmp_path / "base.safetensors")
    for snr in (30.0, 50.0, 90.0):
        written = merge_adapter(tmp_path / "base.safetensors", tmp_path / "adapter", snr=snr)
        rebuilt = refine.reconstitute(base, written.data)
        for name, tensor in expected.items():
            added = (tensor - base[name]).double()
            error = (rebuilt[name] - tensor).double()
            if not added.any():
                assert torch.equal(rebuilt[name], base[name])
                continue
            # peft merges in float32: beyond 90 dB its own rounding shows.
            ratio = 10 * np.log10(float(added.square().sum() / error.square().sum()))
            assert ratio > snr - 2.5, name  # of few values, by chance


def test_an_update_of_an_adapter_is_smaller_than_the_adapter(tmp_path: Path):
    adapted(tmp_path)
    written = merge_adapter(tmp_path / "base.safetensors", tmp_path / "adapter")
    adapter = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    assert len(written.data) < 0.45 * adapter


def test_half_precision_bases_are_rounded_once(tmp_path: Path):
    expected = adapted(tmp_path, torch.bfloat16)
    base = load_file(tmp_path / "base.safetensors")
    rebuilt = refine.reconstitute(
        base, merge_adapter(base_of(base), tmp_path / "adapter", snr=90.0).data
    )
    assert rebuilt["up.weight"].dtype == torch.bfloat16
    torch.testing.assert_close(rebuilt["up.weight"], expected["up.weight"], rtol=1e-2, atol=1e-3)


def base_of(state: dict[str, torch.Tensor]):
    from limosa.codec.base import Base
    from limosa.torch.dtypes import to_tensor

    return Base.from_tensors({name: to_tensor(name, tensor) for name, tensor in state.items()})


def test_on_the_command_line(tmp_path: Path):
    expected = adapted(tmp_path)

    def limosa_(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "limosa.cli.main", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60)

    made = limosa_("diff", "base.safetensors", "--adapter", "adapter", "-o", "x.update")
    assert made.returncode == 0, made.stderr
    assert limosa_("apply", "base.safetensors", "x.update", "-o", "new.safetensors").returncode == 0
    new = load_file(tmp_path / "new.safetensors")
    torch.testing.assert_close(new["up.weight"], expected["up.weight"], rtol=0, atol=2e-3)
    for wrong in (["--bits", "4"], ["base.safetensors"]):
        refused = limosa_("diff", "base.safetensors", *wrong, "--adapter", "adapter", "-o", "y")
        assert refused.returncode == 2
        assert not (tmp_path / "y").exists()


def test_an_adapter_comes_back_as_the_folder_that_peft_loads(tmp_path: Path):
    adapted(tmp_path)
    limosa.compress(tmp_path / "adapter", tmp_path / "adapter.limosa")
    limosa.decompress(tmp_path / "adapter.limosa", tmp_path / "back")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "adapter" / name).read_bytes()
    model = peft.PeftModel.from_pretrained(Network(), tmp_path / "back")
    assert model(torch.zeros(1, 3, dtype=torch.long)).shape == (1, 3, 8)


def test_what_cannot_be_merged_says_why(tmp_path: Path):
    adapted(tmp_path)
    adapter, base = tmp_path / "adapter", tmp_path / "base.safetensors"
    config = json.loads((adapter / "adapter_config.json").read_text())

    def with_config(text: str) -> None:
        (adapter / "adapter_config.json").write_text(text)

    with_config(json.dumps({**config, "peft_type": "BOFT"}))
    with pytest.raises(ConfigError, match="BOFT"):
        merge_adapter(base, adapter)
    with_config(json.dumps({**config, "lora_alpha": "x"}))
    with pytest.raises(CorruptError, match="lora_alpha"):
        merge_adapter(base, adapter)
    with_config("[" * 100_000)
    with pytest.raises(CorruptError, match="JSON"):
        merge_adapter(base, adapter)
    with_config(" " * 2**21)
    with pytest.raises(LimitError):
        merge_adapter(base, adapter)
    with_config(json.dumps(config))
    save_file({"up.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="another base"):
        merge_adapter(tmp_path / "other.safetensors", adapter)
    with pytest.raises(ConfigError, match="snr"):
        merge_adapter(base, adapter, snr=0)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ConfigError, match="pickled"):
        merge_adapter(base, adapter)
    with pytest.raises(ConfigError, match="no adapter"):
        merge_adapter(base, tmp_path)


def test_dora_is_refused_by_layer(tmp_path: Path):
    adapted(tmp_path, use_dora=True)
    with pytest.raises(ConfigError, match=r"DoRA.*|layer 'up'"):
        merge_adapter(tmp_path / "base.safetensors", tmp_path / "adapter")
