"""save, load and open_file for torch tensors."""

from __future__ import annotations

import io

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import limosa  # noqa: E402
import limosa.torch as lt  # noqa: E402
from limosa.errors import BaseMismatchError, ConfigError  # noqa: E402
from limosa.torch.dtypes import TORCH_DTYPES  # noqa: E402


def every_dtype():
    torch.manual_seed(0)
    model = {}
    for name, dtype in TORCH_DTYPES.items():
        raw = torch.randint(0, 2 if name == "BOOL" else 100, (6, 64), dtype=torch.uint8)
        model[name] = raw.view(dtype)
    model["scalar"] = torch.tensor(3)
    model["empty"] = torch.empty(0, 5, dtype=torch.bfloat16)
    model["turned"] = torch.randn(5, 7).T
    return model


def same(a, b):
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    raw = [t.contiguous().reshape(-1).view(torch.uint8) if t.numel() else t for t in (a, b)]
    return raw[0].numel() == 0 or torch.equal(*raw)


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert same(found[name], tensor), name


def test_deterministic_algorithms_may_be_on(tmp_path):
    model = every_dtype()
    torch.use_deterministic_algorithms(True)
    try:
        assert_equal(lt.load(lt.save(model)), model)
    finally:
        torch.use_deterministic_algorithms(False)


def test_every_dtype(tmp_path):
    model, path = every_dtype(), tmp_path / "m.limosa"
    lt.save_file(model, path, {"format": "pt"})
    assert_equal(lt.load_file(path, verify=True), model)
    assert_equal(lt.load(lt.save(model)), model)
    assert_equal(lt.load(io.BytesIO(lt.save(model))), model)
    with lt.open_file(path) as file:
        assert file.metadata() == {"format": "pt"}
        assert_equal({name: file.get_tensor(name) for name in file.keys()}, model)  # noqa: SIM118
        assert same(file.get_slice("BF16")[2:4, ::2], model["BF16"][2:4, ::2].contiguous())


def test_the_bytes_are_those_of_numpy():
    array = np.random.default_rng(0).standard_normal((30, 40)).astype("f4")
    assert lt.save({"w": torch.from_numpy(array)}) == limosa.save({"w": array})


def test_a_module_and_its_update():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(100, 100), torch.nn.Linear(100, 100))
    module[1].weight = module[0].weight
    base = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with torch.no_grad():
        module[0].bias += 1e-3
    update = lt.save(module.state_dict(), base=base)
    assert len(update) < 2000
    assert_equal(lt.load(update, base=base, verify=True), module.state_dict())
    with pytest.raises(BaseMismatchError):
        lt.load(update, base=module.state_dict())


def test_decoding_into_a_module():
    torch.manual_seed(0)
    sent, received = torch.nn.Linear(50, 60), torch.nn.Linear(50, 60)
    lt.load(lt.save(sent.state_dict()), out=received.state_dict())
    assert torch.equal(sent.weight, received.weight)
    assert torch.equal(sent.bias, received.bias)


@pytest.mark.parametrize(
    "out",
    [
        {"w": torch.zeros(3, 2)},
        {"w": torch.zeros(2, 3, dtype=torch.float64)},
        {"w": torch.zeros(3, 2).T},
        {"v": torch.zeros(2, 3)},
    ],
)
def test_tensors_that_do_not_fit(out):
    with pytest.raises(ConfigError):
        lt.load(lt.save({"w": torch.ones(2, 3)}), out=out)


def test_tensors_that_cannot_be_encoded():
    for bad in (torch.ones(3, dtype=torch.complex128), torch.ones(3, 3).to_sparse()):
        with pytest.raises(ConfigError, match="'w'"):
            lt.save({"w": bad})


def test_conjugates_are_resolved():
    tensor = torch.randn(8, dtype=torch.complex64)
    assert torch.equal(lt.load(lt.save({"c": tensor.conj()}))["c"], tensor.conj())
