"""A window like Slicer's: modules and help on the left, the four views on the right. For screenshots and as dialogs'
parent.
"""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt, Signal, Slot
from PySide6.QtGui import QColor, QIcon, QPalette, QPixmap
from PySide6.QtWidgets import (
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QScrollArea,
    QSizePolicy,
    QSlider,
    QTabWidget,
    QTextBrowser,
    QToolBar,
    QVBoxLayout,
    QWidget,
)

from .ctk_widgets import ctkCollapsibleButton
from .proxy import register, unwrap

VIEWS = (
    ("Red", "R", "#f34a33", 0, 0),
    ("1", "1", "#8c9ee6", 0, 1),
    ("Green", "G", "#6ead4b", 1, 0),
    ("Yellow", "Y", "#edd54c", 1, 1),
)
AXES = {"Axial": ("S", "I", 2), "Coronal": ("A", "P", 1), "Sagittal": ("R", "L", 0)}
PANEL_WIDTH = 470


def slicer_palette() -> QPalette:
    """Slicer's light colors."""
    palette = QPalette(QColor("#efefef"))
    roles = QPalette.ColorRole
    for role, color in (
        (roles.Window, "#efefef"),
        (roles.WindowText, "#000000"),
        (roles.Base, "#ffffff"),
        (roles.AlternateBase, "#f7f7f7"),
        (roles.Text, "#000000"),
        (roles.Button, "#efefef"),
        (roles.ButtonText, "#000000"),
        (roles.Highlight, "#308cc6"),
        (roles.HighlightedText, "#ffffff"),
        (roles.ToolTipBase, "#ffffdc"),
        (roles.ToolTipText, "#000000"),
        (roles.PlaceholderText, "#808080"),
    ):
        palette.setColor(role, QColor(color))
    for role in (roles.WindowText, roles.Text, roles.ButtonText):
        palette.setColor(QPalette.ColorGroup.Disabled, role, QColor("#9a9a9a"))
    return palette


@register("slicer.qSlicerModuleSelectorToolBar")
class ModuleSelector(QToolBar):
    moduleSelected = Signal(str)

    def __init__(self, parent, host):
        super().__init__(parent)
        self._host = host
        self.setMovable(False)
        self.addWidget(QLabel(" Modules: "))
        self._box = QComboBox()
        self._box.setMinimumWidth(220)
        self.addWidget(self._box)
        self._current = ""

    @Slot(str)
    def selectModule(self, name: str) -> None:
        self._host.selectModule(name)

    def show_current(self, name: str, title: str, icon: QIcon) -> None:
        self._current = name
        self._box.clear()
        self._box.addItem(icon, title)
        self.moduleSelected.emit(name)

    selectedModule = property(lambda self: self._current)


class ViewFrame(QWidget):
    """One view: its colored bar and its picture."""

    def __init__(self, name: str, label: str, color: str, parent=None):
        super().__init__(parent)
        self._name, self._first_label = name, label
        bar = QWidget(self)
        bar.setAutoFillBackground(True)
        palette = bar.palette()
        palette.setColor(QPalette.ColorRole.Window, QColor(color))
        palette.setColor(QPalette.ColorRole.WindowText, QColor("#202020"))
        bar.setPalette(palette)
        bar.setFixedHeight(26)
        row = QHBoxLayout(bar)
        row.setContentsMargins(8, 0, 8, 0)
        self._label = QLabel(f"<b>{label}</b>")
        row.addWidget(self._label)
        self._slider = QSlider(Qt.Orientation.Horizontal)
        self._offset = QLabel()
        if name != "1":
            row.addWidget(self._slider, 1)
            row.addWidget(self._offset)
        else:
            row.addStretch(1)
        self._picture = QLabel()
        self._picture.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)
        self._picture.setStyleSheet("background: black; color: white")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(bar)
        layout.addWidget(self._picture, 1)

    def draw(self, view) -> None:
        """Take a picture of Slicer's view in the size that it has here."""
        image = view.image(*self.picture_size())
        self._picture.setPixmap(QPixmap.fromImage(image))
        if self._name != "1":
            self._label.setText(f"<b>{view.mrmlSliceNode().GetLayoutLabel() or self._first_label}</b>")
            logic = view.sliceLogic()
            bounds, resolution = [0.0, 0.0], _mutable_double()
            logic.GetSliceOffsetRangeResolution(bounds, resolution)
            offset = logic.GetSliceOffset()
            plus, minus, _axis = AXES.get(view.mrmlSliceNode().GetOrientation(), ("", "", 0))
            self._offset.setText(f"{plus if offset >= 0 else minus}: {abs(offset):.4f}mm")
            if bounds[1] > bounds[0]:
                self._slider.setValue(int(99 * (offset - bounds[0]) / (bounds[1] - bounds[0])))

    def picture_size(self) -> tuple[int, int]:
        return max(self._picture.width(), 16), max(self._picture.height(), 16)

    def say(self, text: str) -> None:
        self._picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._picture.setText(text)


def _mutable_double():
    import vtk

    return vtk.reference(0.0)


@register("slicer.qSlicerMainWindow")
class MainWindow(QMainWindow):
    """The window that ``slicer.util.mainWindow()`` finds."""

    def __init__(self, host):
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self.setWindowTitle("3D Slicer")
        self._host = host
        for name in ("File", "Edit", "View", "Help"):
            self.menuBar().addMenu("&" + name)
        self._selector = ModuleSelector(self, host)
        self.addToolBar(self._selector)
        self._help = ctkCollapsibleButton("Help && Acknowledgement")
        tabs = QTabWidget()
        tabs.setMaximumHeight(160)
        self._help_text, self._acknowledgement = QTextBrowser(), QTextBrowser()
        tabs.addTab(self._help_text, "Help")
        tabs.addTab(self._acknowledgement, "Acknowledgement")
        QVBoxLayout(self._help).addWidget(tabs)
        self._help.setProperty("collapsed", True)
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        panel = QWidget()
        panel.setObjectName("ModulePanel")
        column = QVBoxLayout(panel)
        column.setContentsMargins(4, 4, 4, 4)
        title = QLabel("  3D Slicer")
        title.setStyleSheet("color: #b3b7cf; font-size: 17pt; font-family: 'DejaVu Sans Mono'")
        title.setObjectName("LogoLabel")
        column.addWidget(title)
        column.addWidget(self._help)
        column.addWidget(self._scroll, 1)
        panel.setFixedWidth(PANEL_WIDTH)
        self._frames = {}
        views = QWidget()
        grid = QGridLayout(views)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(1)
        for name, label, color, row, place in VIEWS:
            frame = ViewFrame(name, label, color)
            self._frames[name] = frame
            grid.addWidget(frame, row, place)
        self._grid, self._rows = grid, None
        central = QWidget()
        whole = QHBoxLayout(central)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.setSpacing(0)
        whole.addWidget(panel)
        whole.addWidget(views, 1)
        self.setCentralWidget(central)
        self.statusBar()
        self.resize(1500, 1000)

    def sizeHint(self) -> QSize:
        return QSize(1500, 1000)

    def moduleSelector(self):
        return self._selector

    def show_module(self, module, widget) -> None:
        """Put a module's panel on the left, or nothing."""
        old = self._scroll.takeWidget()
        if old is not None:
            old.setParent(None)
        if module is None:
            self._selector.show_current("", "", QIcon())
            return
        values = module._values
        self._selector.show_current(values["name"], values["title"], unwrap(values["icon"]))
        self._help_text.setHtml(values["helpText"])
        people = ", ".join(values["contributors"])
        self._acknowledgement.setHtml(f"{values['acknowledgementText']}<p>Contributors: {people}</p>")
        self._scroll.setWidget(widget)
        widget.show()

    def view_sizes(self) -> dict:
        """Width and height of each view's picture, by its name."""
        return {name: frame.picture_size() for name, frame in self._frames.items()}

    def draw_views(self, layout_manager) -> None:
        """Bring the pictures of the views up to date."""
        self.arrange(layout_manager)
        plot = layout_manager.plotWidget(0) if self._rows is None else None
        top_right = self._grid.itemAtPosition(0, 1).widget() if self._rows is None else None
        wanted = plot if plot is not None else self._frames["1"]
        if top_right is not None and top_right is not wanted:
            self._grid.removeWidget(top_right)
            top_right.hide()
            self._grid.addWidget(wanted, 0, 1)
            wanted.show()
            self._grid.activate()
        for name, view in layout_manager.views().items():
            if name in self._frames and not self._frames[name].isHidden():
                self._frames[name].draw(view)

    def arrange(self, layout_manager) -> None:
        """Put the views where the layout has them: two rows of two, or as a panel wishes; they get their sizes."""
        rows = layout_manager.rows()
        if rows == self._rows:
            return
        self._rows = rows
        for frame in self._frames.values():
            self._grid.removeWidget(frame)
            frame.hide()
        for name in [name for row in rows or () for name in row if name not in self._frames]:
            self._frames[name] = ViewFrame(name, name, "#c0c0c0")
        places = [(name, row, place) for name, _label, _color, row, place in VIEWS]
        if rows is not None:
            places = [(name, row, place) for row, names in enumerate(rows) for place, name in enumerate(names)]
        for name, row, place in places:
            self._grid.addWidget(self._frames[name], row, place)
            self._frames[name].show()
        self._grid.activate()
        for name in [name for name, _row, _place in places if name != "1"]:
            self._frames[name].layout().activate()
            layout_manager.views()[name].sliceLogic().ResizeSliceNode(*self._frames[name].picture_size())

    def say_in_views(self, text: str) -> None:
        for frame in self._frames.values():
            frame.say(text)
