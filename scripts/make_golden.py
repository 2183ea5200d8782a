"""Write tests/golden and tests/golden-errors anew.

Before version 1.0 the format may change, and then all files are written again; afterwards a file
that is in the repository is never changed. `--hand` leaves out the files that limosa's own encoder
writes, and so needs no installed limosa.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "conformance"))
from blake3 import blake3
from hand_made import Case, cases
from hand_made_errors import error_cases
from hand_made_level_errors import level_error_cases
from hand_made_levels import level_cases
from naive_classes import class_cases, class_error_cases
from naive_packed import packed_cases, packed_error_cases
from naive_repeats import repeat_cases, repeat_error_cases

TESTS = Path(__file__).parents[1] / "tests"


def main() -> None:
    folders = TESTS / "golden", TESTS / "golden-errors"
    for folder in folders:
        for case in folder.glob("*/expected.json"):
            shutil.rmtree(case.parent)
    for case in [*cases(), *level_cases(), *class_cases(), *repeat_cases(), *packed_cases()]:
        write(folders[0] / case.name, case.files(), expected_of(case))
    bad = [*error_cases(), *level_error_cases(), *class_error_cases(), *repeat_error_cases()]
    bad += packed_error_cases()
    for case in bad:
        expected = {"error": case.error, "why": case.why, **layers_of(case.layers)}
        write(folders[1] / case.name, case.files(), expected)
    if "--hand" not in sys.argv:
        from encoder_made import encoder_cases

        for name, files, expected in encoder_cases():
            write(folders[0] / name, files, expected)
        write_refinements(*folders)
        write_features(TESTS / "golden-features")
    total = sum(file.stat().st_size for folder in folders for file in folder.rglob("*.*"))
    print(f"{total:,} bytes")


def write_refinements(golden: Path, errors: Path) -> None:
    from refinements_made import refinement_cases, refinement_error_cases

    for name, files, expected in refinement_cases():
        write(golden / name, files, expected)
    for name, files, expected in refinement_error_cases():
        write(errors / name, files, expected)


def write_features(folder: Path) -> None:
    from features_made import feature_cases, feature_error_cases

    for case in folder.glob("*/expected.json"):
        shutil.rmtree(case.parent)
    for name, files, expected in [*feature_cases(), *feature_error_cases()]:
        write(folder / name, files, expected)


def expected_of(case: Case) -> dict:
    """What a decoder has to find."""
    rows = [(t.name, t.dtype, t.shape, blake3(t.data).hexdigest()) for t in case.tensors]
    keys = ("name", "dtype", "shape", "blake3")
    tensors = [dict(zip(keys, row, strict=True)) for row in rows]
    return {"feature": case.feature, **layers_of(len(case.below) + 1), "tensors": tensors}


def layers_of(count: int) -> dict:
    """What a pipe's reader has to be told."""
    return {"layers": count} if count > 1 else {}


def write(folder: Path, files: dict[str, bytes], expected: dict) -> None:
    """One case; two of one name are a mistake."""
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    text = json.dumps(expected, indent=1, ensure_ascii=False)
    (folder / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
