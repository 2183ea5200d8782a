"""Techniques on architectures of transformers, whose layers are not all torch's own."""

import pytest
import torch
from torch import nn

from limosa.errors import ConfigError
from limosa.torch import load, optimize, refine
from limosa.torch.optimize import Context
from limosa.torch.optimize.export import export

transformers = pytest.importorskip("transformers")
TOKENS = {"input_ids": torch.arange(1, 17).reshape(2, 8)}
IMAGES = {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)}
SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}


def made(kind, use, **settings):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **settings)
    return getattr(transformers, f"AutoModelFor{use}").from_config(config).eval()


def gpt2():
    sizes = {"vocab_size": 64, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return made("gpt2", "CausalLM", **sizes, use_cache=False)


def vit():
    sizes = {"intermediate_size": 64, "image_size": 32, "patch_size": 8, "num_labels": 5}
    return made("vit", "ImageClassification", **SIZES, **sizes)


def neox():
    sizes = {"vocab_size": 64, "intermediate_size": 64, "use_cache": False}
    return made("gpt_neox", "CausalLM", **SIZES, **sizes)


def t5():
    sizes = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2}
    return made("t5", "Seq2SeqLM", **sizes, num_heads=4, use_cache=False)


def llama(kind="llama", **settings):
    sizes = {
        "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4,
        "max_position_embeddings": 32, "use_cache": False,
    }  # fmt: skip
    return made(kind, "CausalLM", **{**sizes, **settings})


def loss(model, batch):
    return model(**batch).logits.square().mean()


@pytest.mark.parametrize(
    "technique",
    [
        optimize.MagnitudePruning(0.5), optimize.SaliencyPruning(0.5), optimize.LinearRounding(4),
        optimize.CodebookRounding(8),
    ],
    ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_linear_layers_of_gpt2_are_layers(technique):
    done = technique.apply(gpt2(), Context(TOKENS, [TOKENS], loss))
    changed = {change.layer for change in done.changes}
    assert {"transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj"} <= changed
    assert len(changed) == 8
    assert [one.layer for one in done.refused] == ["lm_head"]
    for change in done.changes:
        before, after = (one.get_submodule(change.layer).weight for one in (gpt2(), done.model))
        assert not torch.equal(before, after)


@pytest.mark.parametrize(
    "technique",
    [
        optimize.LowRank(budget=0.5), optimize.StructuredPruning(0.5),
        optimize.MagnitudePruning(pattern="2:4"), optimize.IntegerKernels(),
    ],
    ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_what_cannot_take_them_says_so(technique):
    with pytest.raises(ConfigError, match="Conv1D"):
        technique.apply(gpt2(), Context(TOKENS))


@pytest.mark.parametrize(
    ("make", "example", "read"),
    [
        (vit, IMAGES, {"vit.embeddings.patch_embeddings.projection"}),
        (
            t5,
            {**TOKENS, "decoder_input_ids": TOKENS["input_ids"]},
            {f"{part}.block.{number}.layer.{place}.DenseReluDense.wo"
             for part, place in (("encoder", 1), ("decoder", 2)) for number in (0, 1)},
        ),
    ],
)  # fmt: skip
def test_layers_that_are_asked_for_their_dtype_stay(make, example, read):
    done = optimize.LowRank(rank=4).apply(make(), Context(example))
    assert {one.layer for one in done.refused if "reads" in one.why} == read
    assert len(done.changes) > 10


def test_a_library_that_stumbles_is_no_crash():
    # torch-pruning takes what comes out of it for as wide as what goes in.
    net = nn.Sequential(nn.Linear(8, 32), nn.GLU(), nn.Linear(16, 4)).eval()
    done = optimize.StructuredPruning(0.5).apply(net, Context(torch.ones(2, 8)))
    assert not done.changes
    assert [one.layer for one in done.refused] == ["0", "2"]
    assert "cannot be followed" in done.refused[0].why


def test_heads_that_nothing_tells_stay(monkeypatch):
    monkeypatch.setattr("limosa.torch.optimize.heads._FUSED", ())
    done = optimize.StructuredPruning(0.5, only="query").apply(neox(), Context(TOKENS))
    assert not done.changes
    assert len(done.refused) == 2


def test_what_depends_on_a_transposed_convolution():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 12, 4, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 1, 1),
    ).eval()  # fmt: skip
    done = optimize.StructuredPruning(0.5).apply(net, Context(torch.randn(2, 3, 16, 16)))
    assert done.model[3].weight.shape == (8, 6, 4, 4)


def test_layers_whose_halves_are_multiplied_stay():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(16, 64), nn.Linear(32, 16)

        def forward(self, x):
            gate, value = self.up(x).chunk(2, -1)
            return self.down(gate.sigmoid() * value)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), Gated(), nn.Linear(16, 4)).eval()
    done = optimize.StructuredPruning(0.5).apply(net, Context(torch.randn(3, 16)))
    assert [one.layer for one in done.refused] == ["2.up", "3"]
    assert done.model[2].up.out_features == 64
    assert done.model[0].out_features == 8


def test_recurrent_layers_stay():
    class Last(nn.Module):
        def forward(self, x):
            return x[0]

    net = nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8), nn.LSTM(8, 8), Last(), nn.Linear(8, 3)
    ).eval()
    done = optimize.StructuredPruning(0.5).apply(net, Context(torch.randn(2, 5, 8)))
    assert done.model[0].out_features == 8
    assert done.model[3].hidden_size == done.model[5].in_features == 8


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "qwen3"])
@pytest.mark.parametrize("groups", [8, 4, 1])
def test_heads_that_share_keys_and_values_go_together(kind, groups):
    net = llama(kind, num_key_value_heads=groups)
    context = Context({"input_ids": torch.arange(12).reshape(2, 6)})
    technique = optimize.HeadPruning(0.5)
    if groups == 1:
        done = technique.apply(net, context)
        assert not done.changes
        assert [one.why for one in done.refused] == ["no head of 8 would go"] * 2
        return
    done = technique.apply(net, context)
    assert [change.what for change in done.changes] == ["8 heads to 4"] * 2
    attention = done.model.model.layers[0].self_attn
    assert attention.q_proj.out_features == attention.o_proj.in_features == 16
    assert attention.k_proj.out_features == attention.v_proj.out_features == 2 * groups
    twin = llama(kind, num_key_value_heads=groups)
    for path, columns in done.gone.items():
        twin.get_submodule(path).weight.data[:, list(columns)] = 0.0
    tokens = context.example["input_ids"]
    assert torch.allclose(twin(tokens).logits, done.model(tokens).logits, atol=1e-5)


def test_structured_pruning_leaves_heads_whole_that_only_their_width_tells():
    context = Context({"input_ids": torch.arange(12).reshape(2, 6)})
    done = optimize.StructuredPruning(0.5, only="proj").apply(llama(), context)
    left = {one.layer for one in done.refused}
    assert {f"model.layers.0.self_attn.{name}_proj" for name in "qkv"} <= left
    mlp = done.model.model.layers[1].mlp
    assert mlp.gate_proj.out_features == mlp.down_proj.in_features == 24


def test_heads_side_by_side_are_refused_by_the_guard():
    with pytest.raises(ConfigError, match="elsewhere than is usual"):
        optimize.HeadPruning(0.5).apply(neox(), Context(TOKENS))


def test_linear_layers_of_gpt2_are_refined():
    net = gpt2()
    base = {name: one.clone() for name, one in net.state_dict().items()}
    session = refine.prepare(net, refine.Core(r=4), rate=refine.Rate(lam=1e-9, step=0.02))
    optimizer = torch.optim.Adam(session.parameters(), lr=0.03)
    for _ in range(3):
        optimizer.zero_grad()
        (loss(net, TOKENS) + session.rate_loss()).backward()
        optimizer.step()
    update = session.update()
    assert len(update) < 6000, "factors travel, not 24,576 differences"
    decoded = load(update, base=base)
    assert all(torch.equal(decoded[name], one) for name, one in net.state_dict().items())
    name = "transformer.h.0.attn.c_attn.weight"
    assert not torch.equal(decoded[name], base[name])


def test_out_to_onnx_for_batches_of_any_size(tmp_path, capfd):
    pytest.importorskip("onnxruntime")
    (done,) = export(neox(), tmp_path, ["onnx"], Context(TOKENS))
    assert done.any_batch
    assert done.difference < 1e-5
    assert capfd.readouterr() == ("", "")


def test_calibration_takes_the_logits():
    net, batch = vit(), IMAGES
    done = optimize.CalibratedRounding(bits=4).apply(net, Context(batch, [(batch, None)]))
    assert len(done.changes) == len(
        [one for one in net.modules() if isinstance(one, nn.Linear | nn.Conv2d)]
    )
