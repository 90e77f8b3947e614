"""Starting from a network that has learned already: whose weights, how they are fitted, and which may move when.

``load_pretrained`` fills a classifier; ``network_for`` says which classifier a bundle's weights fit;
``parameter_groups``, ``frozen_stages`` and ``set_frozen`` decide how fast each stage learns, and from when.
"""

from __future__ import annotations

from .loading import TransferReport, load_pretrained
from .sources import network_for
from .stages import frozen_stages, parameter_groups, set_frozen

__all__ = ["TransferReport", "frozen_stages", "load_pretrained", "network_for", "parameter_groups", "set_frozen"]
