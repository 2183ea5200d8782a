"""Three versions of a small trained model, to try limosa on real weights without a download.

``scripts/make_demo_models.py`` in the repository trained them: version 1 on 3 000 handwritten
digits, versions 2 and 3 each fine-tuned from the one before on 500 more.
"""

from pathlib import Path


def models() -> tuple[Path, ...]:
    """The three versions, oldest first, as ``.safetensors`` files.

    >>> [path.name for path in models()]
    ['digits-v1.safetensors', 'digits-v2.safetensors', 'digits-v3.safetensors']
    """
    return tuple(sorted(Path(__file__).parent.glob("digits-v*.safetensors")))
