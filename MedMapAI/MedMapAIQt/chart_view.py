"""A plot in a panel, and the choice of what it draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer


class ChartView:
    """A plot view of the panel's own, which no layout of Slicer manages, and a combo box of charts above it.

    container: a widget with a layout, for the plot. selector: a QComboBox, shown where there is more than one chart.
    name: of the view node.
    """

    def __init__(self, container: Any, selector: Any, name: str):
        self._name, self._selector = name, selector
        self._charts: list[tuple[str, Any]] = []
        #: The view node; None until something is drawn.
        self.viewNode = None
        self.view = slicer.qMRMLPlotView()
        self.view.setMRMLScene(slicer.mrmlScene)
        self.view.toolTip = container.toolTip
        container.layout().addWidget(self.view)
        selector.currentIndexChanged.connect(self._onChosen)

    def show(self, charts: Sequence[tuple[str, Any]], owner: Any) -> None:
        """Offer charts, (title, chart node) each, and draw the one that was drawn before, at first the first.

        owner: a node of the module, which the view node belongs to.
        """
        chosen = self._selector.currentText
        titles = [title for title, _ in charts]
        self._charts = list(charts)
        wasBlocked = self._selector.blockSignals(True)
        self._selector.clear()
        for title in titles:
            self._selector.addItem(title)
        self._selector.setCurrentIndex(titles.index(chosen) if chosen in titles else 0)
        self._selector.blockSignals(wasBlocked)
        self._selector.visible = len(charts) > 1
        if self.viewNode is None:
            self.viewNode = self._makeViewNode(owner)
            self.view.setMRMLPlotViewNode(self.viewNode)
        self._onChosen()

    def forget(self) -> None:
        """Draw nothing: the scene is closed, or the panel ends."""
        self.view.setMRMLPlotViewNode(None)
        self.viewNode = None
        self._charts = []
        wasBlocked = self._selector.blockSignals(True)
        self._selector.clear()
        self._selector.blockSignals(wasBlocked)
        self._selector.visible = False

    def _onChosen(self, index: int = -1) -> None:
        number = self._selector.currentIndex
        if self.viewNode is not None and 0 <= number < len(self._charts):
            self.viewNode.SetPlotChartNodeID(self._charts[number][1].GetID())
            self.view.fitToContent()

    def _makeViewNode(self, owner: Any) -> Any:
        viewNode = slicer.mrmlScene.GetSingletonNode(self._name, "vtkMRMLPlotViewNode")
        if viewNode is None:
            viewNode = slicer.mrmlScene.CreateNodeByClass("vtkMRMLPlotViewNode")
            viewNode.UnRegister(None)
            viewNode.SetSingletonTag(self._name)
            viewNode.SetLayoutName(self._name)
            viewNode.SetName(self._name)
            viewNode.SetHideFromEditors(True)
            viewNode.SetSaveWithScene(False)
            # Views that have a parent are left alone by the layout manager.
            viewNode.SetAndObserveParentLayoutNodeID(owner.GetID())
            viewNode = slicer.mrmlScene.AddNode(viewNode)
        return viewNode
