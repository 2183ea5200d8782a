"""The public surface is a promise: a name comes or goes here, and in CHANGELOG.md, on purpose."""

import pytest

import limosa

PUBLIC = [
    "Base",
    "BaseMismatchError",
    "Channels",
    "ChecksumError",
    "Codebook",
    "ConfigError",
    "CorruptError",
    "Digits",
    "FeatureDecoder",
    "FeatureEncoder",
    "FeatureProfile",
    "FeatureSource",
    "FormatError",
    "LimitError",
    "Limits",
    "LimosaError",
    "Lossless",
    "MaxError",
    "MissingExtraError",
    "Signs",
    "Step",
    "Target",
    "Tensor",
    "TruncatedError",
    "UnsupportedVersionError",
    "apply",
    "compress",
    "compress_layers",
    "decompress",
    "diff",
    "inspect",
    "load",
    "load_file",
    "load_profile",
    "open_base",
    "open_file",
    "save",
    "save_file",
    "save_profile",
    "verify",
]


TORCH = [
    "Calibration",
    "Cut",
    "Cuts",
    "FeatureTuning",
    "Head",
    "Tail",
    "Tap",
    "TunedPoint",
    "calibrate",
    "cuts",
    "load",
    "load_file",
    "model_digest",
    "open_file",
    "save",
    "save_file",
    "split",
    "tap",
    "tune_feature",
]

REFINE = [
    "Choice",
    "Core",
    "Difference",
    "FilterPruning",
    "KnowledgeAugmentation",
    "LowRankApproximation",
    "LowRankUpdate",
    "MappingLearning",
    "Method",
    "RandomMask",
    "Rate",
    "Session",
    "choose",
    "count",
    "prepare",
    "reconstitute",
]

OPTIMIZE = [
    "BatchNormFolding",
    "CalibratedRounding",
    "Change",
    "CodebookRounding",
    "Context",
    "Distillation",
    "Encoding",
    "Found",
    "GradualPruning",
    "HeadPruning",
    "IntegerKernels",
    "LinearRounding",
    "LowRank",
    "MagnitudePruning",
    "Measures",
    "Optimized",
    "Refusal",
    "SaliencyPruning",
    "Search",
    "StructuredPruning",
    "Student",
    "Technique",
    "TrainedSearch",
    "fit",
    "flat_state",
    "measure",
    "near_lossless",
    "set_flat_state",
]


def test_public_names():
    assert sorted(limosa.__all__) == PUBLIC


def test_public_names_of_torch():
    assert sorted(pytest.importorskip("limosa.torch").__all__) == TORCH


def test_public_names_of_optimize():
    assert sorted(pytest.importorskip("limosa.torch.optimize").__all__) == OPTIMIZE


def test_public_names_of_refine():
    assert sorted(pytest.importorskip("limosa.torch.refine").__all__) == REFINE


def test_public_names_resolve():
    for name in limosa.__all__:
        assert getattr(limosa, name) is not None


def test_public_objects_say_where_they_are_public():
    # A pickled error or a traceback should not teach the reader a private path.
    for name in limosa.__all__:
        assert getattr(limosa, name).__module__.startswith("limosa")
