"""OpenVINO, without its telemetry: nothing leaves the machine.

Importing OpenVINO and converting a network report to Google Analytics through the package openvino_telemetry, from
processes forked for it, unless that package cannot be imported (openvino/tools/ovc/telemetry_utils.py, 2026.4). So it
is kept from being imported, here, before OpenVINO is. Everything else in MedMapAI imports OpenVINO from this file.
"""

from __future__ import annotations

import sys

if "openvino" not in sys.modules:
    # What Python does with a module that is None: import raises ImportError, and OpenVINO goes without.
    sys.modules.setdefault("openvino_telemetry", None)

import openvino
from openvino import opset8

__all__ = ["openvino", "opset8"]
