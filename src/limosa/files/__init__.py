"""Files and folders as tensors, and back.

``read`` gives a :class:`Bundle`: tensors in order, and for every file a :class:`Source` with what
else is needed to write it again; :class:`Restorer` writes it. A safetensors file and every file of
a folder come back byte for byte, the other kinds tensor for tensor.
"""

from __future__ import annotations

from limosa.files.bundle import KINDS as KINDS
from limosa.files.bundle import Bundle as Bundle
from limosa.files.bundle import Source as Source
from limosa.files.read import kind_of as kind_of
from limosa.files.read import read as read
from limosa.files.restore import Restorer as Restorer
from limosa.files.safetensors import bundle_from_tensors as bundle_from_tensors
from limosa.files.safetensors import metadata_of as metadata_of
