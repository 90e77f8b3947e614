"""A measurement that is to become a volume of the scene: what goes to the worker, and where the image belongs."""

from __future__ import annotations

import os
from pathlib import Path

from slicer.i18n import tr as _

from .scene_run import place_image

#: How a volume node refers to the chart of the residual curve that it came with.
RESIDUAL_ROLE = "residualChart"


class MeasurementRun:
    """A reconstruction that was asked for; the same face as SceneRun. Made before it, asked to ``place`` after it.

    measurement, geometry: paths, geometry None or empty where there is none. method: of ``measurements.methods``, or a
    model's name or path. Raises InputError for what is not there; nothing is changed then.
    """

    volumeName = ""

    def __init__(self, measurement, method, geometry=None, options=None, referenceNode=None, outputNode=None):
        from MedMapAILib import mrml
        from MedMapAILib.errors import InputError
        from MedMapAILib.inference.messages import ReconstructRequest

        for path, what in ((measurement, _("measurement")), (geometry, _("geometry"))):
            if path and not os.path.isfile(path):
                raise InputError(_("There is no {what} {path}; choose another file.").format(what=what, path=path))
        if referenceNode is not None and referenceNode == outputNode:
            raise InputError(_("The output would replace the reference; choose another output."))
        self.method, self.outputNode = str(method), outputNode
        self.measurement = os.path.abspath(measurement)
        self.request = ReconstructRequest(
            method=self.method,
            measurement=self.measurement,
            geometry=os.path.abspath(geometry) if geometry else None,
            options=dict(options or {}),
            reference=mrml.image_reference_from_node(referenceNode) if referenceNode is not None else None,
        )

    def volumeIsGone(self):
        """Never: it is made of a file."""
        return False

    def place(self, result):
        """Put a Reconstruction into the scene. Returns its volume node and the result.

        The volume node refers to the chart of its residual curve (``residual_chart``) where there is one.
        """
        from MedMapAILib import mrml

        outputNode = self.outputNode
        if outputNode is not None and outputNode.GetScene() is None:
            outputNode = None
        stem = Path(self.measurement).name.partition(".")[0]
        name = outputNode.GetName() if outputNode is not None else f"{stem} {Path(self.method).name}"
        with mrml.unchanged_on_failure():
            node = place_image(result, name, outputNode)
            chart = None
            if len(result.residuals) > 1:
                chart = mrml.residual_nodes(f"{name} residual", result.residuals)[1]
            node.SetNodeReferenceID(RESIDUAL_ROLE, chart.GetID() if chart is not None else None)
        return node, result


def residual_chart(volumeNode):
    """The chart of the residual curve that a volume node came with, or None."""
    return volumeNode.GetNodeReference(RESIDUAL_ROLE) if volumeNode is not None else None
