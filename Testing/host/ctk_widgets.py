"""CTK's widgets that panels use, made of Qt's: same names, same values, a similar look."""

from __future__ import annotations

import os

from PySide6.QtCore import Property, QRect, QSize, Qt, QTimer, Signal, Slot
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import (
    QAbstractButton,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QGroupBox,
    QHBoxLayout,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QSizePolicy,
    QSlider,
    QStyle,
    QStyleOptionButton,
    QStylePainter,
    QTextBrowser,
    QToolButton,
    QWidget,
)

from .proxy import register, static_overrides


def _ask_for_path(kind: str, *arguments) -> str:
    """A file dialog that a click opens: answered by the test's queue, as those that a panel opens."""
    return static_overrides["QFileDialog"][kind](*arguments)


class _Collapsible:
    """Hides its children while collapsed, and shows those again that it hid."""

    def _children(self):
        return [c for c in self.children() if isinstance(c, QWidget) and not c.isWindow()]

    def _hide_children(self, hide: bool) -> None:
        if hide:
            self._hidden = [c for c in self._children() if not c.isHidden()]
            for child in self._hidden:
                child.hide()
        else:
            for child in getattr(self, "_hidden", []):
                child.show()
            self._hidden = []


@register("ctk.ctkCollapsibleButton")
class ctkCollapsibleButton(_Collapsible, QAbstractButton):
    contentsCollapsed = Signal(bool)

    def __init__(self, parent=None, second=None):
        text = parent if isinstance(parent, str) else ""
        QAbstractButton.__init__(self, second if isinstance(parent, str) else parent)
        self._collapsed = False
        self._collapsed_height = 0
        self._hidden = []
        self.setText(text)
        self.setCheckable(True)
        self.setChecked(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.setContentsMargins(0, self._header_height(), 0, 0)
        self.toggled.connect(self._on_toggled)

    def _header_height(self) -> int:
        return self.fontMetrics().height() + 8

    def _on_toggled(self, checked: bool) -> None:
        self._set_collapsed(not checked)

    def _get_collapsed(self) -> bool:
        return self._collapsed

    def _set_collapsed(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        self.setChecked(not collapsed)
        self._hide_children(collapsed)
        self.setMaximumHeight(self._header_height() + self._collapsed_height if collapsed else 16777215)
        self.updateGeometry()
        self.contentsCollapsed.emit(collapsed)

    def childEvent(self, event):
        QAbstractButton.childEvent(self, event)
        # The child is still under construction: to look at it now would fix its Python class as a bare QWidget.
        if event.added() and self.__dict__.get("_collapsed"):
            QTimer.singleShot(0, self, self._hide_new_children)

    def _hide_new_children(self) -> None:
        if self._collapsed:
            new = [c for c in self._children() if not c.isHidden()]
            self._hidden += new
            for child in new:
                child.hide()

    def sizeHint(self) -> QSize:
        # total...: with the margin that the header takes, as QWidget itself counts.
        inside = self.layout().totalSizeHint() if self.layout() is not None else QSize(0, 0)
        width = max(inside.width(), self.fontMetrics().horizontalAdvance(self.text()) + 40)
        return QSize(width, self._header_height() if self._collapsed else max(inside.height(), self._header_height()))

    def minimumSizeHint(self) -> QSize:
        inside = self.layout().totalMinimumSize() if self.layout() is not None and not self._collapsed else QSize(0, 0)
        return QSize(max(inside.width(), 40), max(inside.height(), self._header_height()))

    def hasHeightForWidth(self) -> bool:
        return not self._collapsed and self.layout() is not None and self.layout().hasHeightForWidth()

    def heightForWidth(self, width: int) -> int:
        if not self.hasHeightForWidth():
            return -1
        return self.layout().totalHeightForWidth(width)

    def hitButton(self, position) -> bool:
        return position.y() < self._header_height()

    def paintEvent(self, _event) -> None:
        painter = QStylePainter(self)
        option = QStyleOptionButton()
        option.initFrom(self)
        option.rect = QRect(0, 0, self.width(), self._header_height())
        painter.drawControl(QStyle.ControlElement.CE_PushButtonBevel, option)
        arrow = QStyleOptionButton()
        arrow.initFrom(self)
        arrow.rect = QRect(6, (self._header_height() - 12) // 2, 12, 12)
        kind = (
            QStyle.PrimitiveElement.PE_IndicatorArrowRight
            if self._collapsed
            else QStyle.PrimitiveElement.PE_IndicatorArrowDown
        )
        painter.drawPrimitive(kind, arrow)
        group = QPalette_group(self)
        painter.setPen(self.palette().color(group, self.foregroundRole()))
        # "&&" is a written "&", as on every Qt button.
        text_rect = QRect(24, 0, self.width() - 30, self._header_height())
        painter.drawText(
            text_rect, int(Qt.AlignmentFlag.AlignVCenter.value) | int(Qt.TextFlag.TextShowMnemonic.value), self.text()
        )

    def _get_collapsed_height(self) -> int:
        return self._collapsed_height

    def _set_collapsed_height(self, height: int) -> None:
        self._collapsed_height = height

    collapsed = Property(bool, _get_collapsed, _set_collapsed)
    collapsedHeight = Property(int, _get_collapsed_height, _set_collapsed_height)
    flat = Property(bool, lambda self: getattr(self, "_flat", False), lambda self, v: setattr(self, "_flat", v))
    # Looks of CTK that this drawing does not have: kept, so that a .ui file may set them.
    contentsFrameShape = Property(
        int, lambda self: getattr(self, "_shape", 0), lambda self, v: setattr(self, "_shape", v)
    )
    contentsFrameShadow = Property(
        int, lambda self: getattr(self, "_shadow", 16), lambda self, v: setattr(self, "_shadow", v)
    )
    contentsLineWidth = Property(int, lambda self: getattr(self, "_line", 1), lambda self, v: setattr(self, "_line", v))
    contentsMidLineWidth = Property(
        int, lambda self: getattr(self, "_mid", 0), lambda self, v: setattr(self, "_mid", v)
    )
    buttonTextAlignment = Property(
        int, lambda self: getattr(self, "_align", 132), lambda self, v: setattr(self, "_align", v)
    )
    indicatorAlignment = Property(
        int, lambda self: getattr(self, "_ind", 129), lambda self, v: setattr(self, "_ind", v)
    )


def QPalette_group(widget):
    """Disabled widgets are drawn gray."""
    from PySide6.QtGui import QPalette

    return QPalette.ColorGroup.Normal if widget.isEnabled() else QPalette.ColorGroup.Disabled


@register("ctk.ctkCollapsibleGroupBox")
class ctkCollapsibleGroupBox(_Collapsible, QGroupBox):
    def __init__(self, *arguments):
        QGroupBox.__init__(self, *arguments)
        self._collapsed = False
        self._collapsed_height = 14
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(lambda on: self._set_collapsed(not on))

    def _get_collapsed(self) -> bool:
        return self._collapsed

    def _set_collapsed(self, collapsed: bool) -> None:
        if collapsed != self._collapsed:
            self._collapsed = collapsed
            self.setChecked(not collapsed)
            self._hide_children(collapsed)
            self.setMaximumHeight(self.fontMetrics().height() + self._collapsed_height if collapsed else 16777215)

    collapsed = Property(bool, _get_collapsed, _set_collapsed)
    collapsedHeight = Property(
        int, lambda self: self._collapsed_height, lambda self, value: setattr(self, "_collapsed_height", value)
    )


@register("ctk.ctkSliderWidget")
class ctkSliderWidget(QWidget):
    """A slider and a spin box with one value."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    decimalsChanged = Signal(int)
    STEPS = 10000

    def __init__(self, parent=None):
        super().__init__(parent)
        self._slider = QSlider(Qt.Orientation.Horizontal, self)
        self._slider.setRange(0, self.STEPS)
        self._box = QDoubleSpinBox(self)
        self._box.setDecimals(2)
        self._box.setRange(0, 100)
        self._tracking = True
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(self._on_box)
        self._slider.sliderMoved.connect(lambda p: self.setValue(self._of_position(p)))
        self._slider.actionTriggered.connect(lambda _a: self.setValue(self._of_position(self._slider.sliderPosition())))

    def _of_position(self, position: int) -> float:
        low, high = self._box.minimum(), self._box.maximum()
        return low + (high - low) * position / self.STEPS

    def _place(self) -> None:
        low, high = self._box.minimum(), self._box.maximum()
        if high > low:
            self._slider.setValue(round((self._box.value() - low) / (high - low) * self.STEPS))

    def _on_box(self, value: float) -> None:
        self._place()
        self.valueIsChanging.emit(value)
        self.valueChanged.emit(value)

    @Slot(float)
    def setValue(self, value: float) -> None:
        self._box.setValue(value)
        self._place()

    def reset(self) -> None:
        self.setValue(0.0)

    def setDecimals(self, decimals: int) -> None:
        self._box.setDecimals(decimals)
        self.decimalsChanged.emit(decimals)

    def setSpinBoxVisible(self, visible: bool) -> None:
        self._box.setVisible(visible)

    def _set_minimum(self, value: float) -> None:
        self._box.setMinimum(value)
        self._place()

    def _set_maximum(self, value: float) -> None:
        self._box.setMaximum(value)
        self._place()

    value = Property(float, lambda self: self._box.value(), setValue)
    minimum = Property(float, lambda self: self._box.minimum(), _set_minimum)
    maximum = Property(float, lambda self: self._box.maximum(), _set_maximum)
    singleStep = Property(float, lambda self: self._box.singleStep(), lambda self, v: self._box.setSingleStep(v))
    pageStep = Property(float, lambda self: getattr(self, "_page", 10.0), lambda self, v: setattr(self, "_page", v))
    decimals = Property(int, lambda self: self._box.decimals(), setDecimals)
    prefix = Property(str, lambda self: self._box.prefix(), lambda self, v: self._box.setPrefix(v))
    suffix = Property(str, lambda self: self._box.suffix(), lambda self, v: self._box.setSuffix(v))
    tracking = Property(bool, lambda self: self._tracking, lambda self, v: setattr(self, "_tracking", v))
    spinBoxVisible = Property(bool, lambda self: not self._box.isHidden(), setSpinBoxVisible)
    tickInterval = Property(float, lambda self: getattr(self, "_tick", 1.0), lambda self, v: setattr(self, "_tick", v))


@register("ctk.ctkDoubleSlider")
class ctkDoubleSlider(QWidget):
    valueChanged = Signal(float)
    sliderMoved = Signal(float)
    sliderPressed = Signal()
    sliderReleased = Signal()
    rangeChanged = Signal(float, float)
    STEPS = 10000

    def __init__(self, orientation=Qt.Orientation.Vertical, parent=None):
        if isinstance(orientation, QWidget):
            orientation, parent = Qt.Orientation.Vertical, orientation
        super().__init__(parent)
        self._low, self._high, self._value, self._step = 0.0, 99.0, 0.0, 1.0
        self._slider = QSlider(orientation, self)
        self._slider.setRange(0, self.STEPS)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        self._slider.sliderMoved.connect(lambda p: self.setValue(self._low + (self._high - self._low) * p / self.STEPS))

    @Slot(float)
    def setValue(self, value: float) -> None:
        value = min(max(value, self._low), self._high)
        if value != self._value:
            self._value = value
            self._slider.setValue(round((value - self._low) / (self._high - self._low or 1) * self.STEPS))
            self.valueChanged.emit(value)

    def setOrientation(self, orientation) -> None:
        self._slider.setOrientation(Qt.Orientation(orientation) if isinstance(orientation, int) else orientation)

    def _set_bounds(self, low: float, high: float) -> None:
        self._low, self._high = low, high
        self.rangeChanged.emit(low, high)
        self.setValue(self._value)

    value = Property(float, lambda self: self._value, setValue)
    minimum = Property(float, lambda self: self._low, lambda self, v: self._set_bounds(v, max(v, self._high)))
    maximum = Property(float, lambda self: self._high, lambda self, v: self._set_bounds(min(v, self._low), v))
    singleStep = Property(float, lambda self: self._step, lambda self, v: setattr(self, "_step", v))
    orientation = Property(Qt.Orientation, lambda self: self._slider.orientation(), setOrientation)


@register("ctk.ctkRangeWidget")
class ctkRangeWidget(QWidget):
    """Two values with a lower and an upper bound."""

    valuesChanged = Signal(float, float)
    minimumValueChanged = Signal(float)
    maximumValueChanged = Signal(float)
    rangeChanged = Signal(float, float)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._boxes = [QDoubleSpinBox(self), QDoubleSpinBox(self)]
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for box, signal in zip(self._boxes, (self.minimumValueChanged, self.maximumValueChanged), strict=True):
            box.setRange(0, 99)
            layout.addWidget(box)
            box.valueChanged.connect(signal)
            box.valueChanged.connect(lambda _v: self.valuesChanged.emit(*[b.value() for b in self._boxes]))
        self._boxes[1].setValue(99)

    def setRange(self, low: float, high: float) -> None:
        for box in self._boxes:
            box.setRange(low, high)
        self.rangeChanged.emit(low, high)

    def setValues(self, low: float, high: float) -> None:
        self._boxes[0].setValue(min(low, high))
        self._boxes[1].setValue(max(low, high))

    def setMinimumValue(self, value: float) -> None:
        self._boxes[0].setValue(value)

    def setMaximumValue(self, value: float) -> None:
        self._boxes[1].setValue(value)

    def setDecimals(self, decimals: int) -> None:
        for box in self._boxes:
            box.setDecimals(decimals)

    minimumValue = Property(float, lambda self: self._boxes[0].value(), setMinimumValue)
    maximumValue = Property(float, lambda self: self._boxes[1].value(), setMaximumValue)
    minimum = Property(
        float, lambda self: self._boxes[0].minimum(), lambda self, v: self.setRange(v, self._boxes[0].maximum())
    )
    maximum = Property(
        float, lambda self: self._boxes[0].maximum(), lambda self, v: self.setRange(self._boxes[0].minimum(), v)
    )
    decimals = Property(int, lambda self: self._boxes[0].decimals(), setDecimals)
    singleStep = Property(
        float,
        lambda self: self._boxes[0].singleStep(),
        lambda self, v: [b.setSingleStep(v) for b in self._boxes] and None,
    )


@register("ctk.ctkPathLineEdit")
class ctkPathLineEdit(QWidget):
    """A path to type, choose from the last ones, or browse for."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    # QDir::Filter and QFileDialog::Option, as CTK declares them again.
    ENUMERATION = {
        "Dirs": 0x1,
        "Files": 0x2,
        "Drives": 0x4,
        "NoSymLinks": 0x8,
        "AllEntries": 0x7,
        "Readable": 0x10,
        "Writable": 0x20,
        "Executable": 0x40,
        "Modified": 0x80,
        "Hidden": 0x100,
        "System": 0x200,
        "AllDirs": 0x400,
        "CaseSensitive": 0x800,
        "NoDot": 0x2000,
        "NoDotDot": 0x4000,
        "NoDotAndDotDot": 0x6000,
        "ShowDirsOnly": 0x1,
        "DontResolveSymlinks": 0x2,
        "DontConfirmOverwrite": 0x4,
        "DontUseNativeDialog": 0x10,
        "ReadOnly": 0x20,
        "HideNameFilterDetails": 0x40,
    }

    def __init__(self, parent=None, *_rest):
        super().__init__(parent if isinstance(parent, QWidget) else None)
        self._filters = 0x7 | 0x6000 | 0x10  # all entries, readable
        self._name_filters: list[str] = []
        self._label = ""
        self._setting_key = ""
        self._box = QComboBox(self)
        self._box.setEditable(True)
        self._box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._button = QToolButton(self)
        self._button.setText("…")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self._box)
        layout.addWidget(self._button)
        self._box.editTextChanged.connect(self._on_text)
        self._button.clicked.connect(self.browse)

    def _on_text(self, text: str) -> None:
        self.currentPathChanged.emit(text)
        self.validInputChanged.emit(os.path.exists(text))

    @Slot()
    def browse(self) -> None:
        only_folders = self._filters & self.ENUMERATION["Dirs"] and not self._filters & self.ENUMERATION["Files"]
        kind = "getExistingDirectory" if only_folders else "getOpenFileName"
        path = _ask_for_path(kind, self, self._label or "Select a path", self.path(), ";;".join(self._name_filters))
        if path:
            self.setCurrentPath(path)
            self.addCurrentPathToHistory()

    def path(self) -> str:
        return self._box.currentText()

    @Slot(str)
    def setCurrentPath(self, path: str) -> None:
        self._box.setEditText(path)

    def addCurrentPathToHistory(self) -> None:
        path = self.path()
        if path and self._box.findText(path) < 0:
            self._box.blockSignals(True)
            self._box.insertItem(0, path)
            self._box.setCurrentIndex(0)
            self._box.blockSignals(False)

    def comboBox(self) -> QComboBox:
        return self._box

    def retrieveHistory(self) -> None:
        pass

    currentPath = Property(str, path, setCurrentPath)
    filters = Property(int, lambda self: self._filters, lambda self, v: setattr(self, "_filters", int(v)))
    nameFilters = Property(
        "QStringList", lambda self: self._name_filters, lambda self, v: setattr(self, "_name_filters", list(v))
    )
    label = Property(str, lambda self: self._label, lambda self, v: setattr(self, "_label", v))
    settingKey = Property(str, lambda self: self._setting_key, lambda self, v: setattr(self, "_setting_key", v))
    showBrowseButton = Property(
        bool, lambda self: not self._button.isHidden(), lambda self, v: self._button.setVisible(v)
    )
    showHistoryButton = Property(bool, lambda self: True, lambda self, v: None)
    options = Property(int, lambda self: getattr(self, "_options", 0), lambda self, v: setattr(self, "_options", v))
    minimumContentsLength = Property(
        int, lambda self: self._box.minimumContentsLength(), lambda self, v: self._box.setMinimumContentsLength(v)
    )


@register("ctk.ctkDirectoryButton")
class ctkDirectoryButton(QWidget):
    directoryChanged = Signal(str)
    directorySelected = Signal(str)

    def __init__(self, parent=None, second=None):
        super().__init__(second if isinstance(parent, str) else parent)
        self._directory = os.path.abspath(parent) if isinstance(parent, str) else os.getcwd()
        self._caption = ""
        self._button = QPushButton(self._directory, self)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._button)
        self._button.clicked.connect(self.browse)

    @Slot()
    def browse(self) -> None:
        path = _ask_for_path("getExistingDirectory", self, self._caption, self._directory)
        if path:
            self._set(path)
            self.directorySelected.emit(path)

    def _set(self, path: str) -> None:
        if path != self._directory:
            self._directory = path
            self._button.setText(path)
            self.directoryChanged.emit(path)

    directory = Property(str, lambda self: self._directory, _set)
    caption = Property(str, lambda self: self._caption, lambda self, v: setattr(self, "_caption", v))
    text = Property(str, lambda self: self._button.text(), lambda self, v: self._button.setText(v))


@register("ctk.ctkComboBox")
class ctkComboBox(QComboBox):
    """A combo box with a text that is shown while nothing is chosen."""

    returnRelease = Signal()

    def __init__(self, parent=None):
        super().__init__(parent)

    def _user_data(self) -> str:
        return str(self.currentData() or "")

    def setCurrentUserDataAsString(self, text: str) -> None:
        self.setCurrentIndex(self.findData(text))

    defaultText = Property(str, lambda self: self.placeholderText(), lambda self, v: self.setPlaceholderText(v))
    currentUserDataAsString = Property(str, _user_data, setCurrentUserDataAsString)


@register("ctk.ctkCheckableComboBox")
class ctkCheckableComboBox(QComboBox):
    checkedIndexesChanged = Signal()

    def __init__(self, parent=None):
        super().__init__(parent)
        self.model().itemChanged.connect(lambda _i: self.checkedIndexesChanged.emit())
        self.model().rowsInserted.connect(self._make_checkable)

    def _make_checkable(self, _parent, first: int, last: int) -> None:
        for row in range(first, last + 1):
            item = self.model().item(row)
            item.setCheckable(True)

    def checkedIndexes(self):
        model = self.model()
        rows = range(model.rowCount())
        return [model.index(r, 0) for r in rows if model.item(r).checkState() == Qt.CheckState.Checked]

    def checkState(self, index):
        return self.model().itemFromIndex(index).checkState()

    def setCheckState(self, index, state) -> None:
        self.model().itemFromIndex(index).setCheckState(Qt.CheckState(state))


@register("ctk.ctkMessageBox")
class ctkMessageBox(QMessageBox):
    dontShowAgainSettingsKey = Property(
        str, lambda self: getattr(self, "_key", ""), lambda self, v: setattr(self, "_key", v)
    )
    dontShowAgain = Property(
        bool, lambda self: getattr(self, "_again", False), lambda self, v: setattr(self, "_again", v)
    )
    dontShowAgainVisible = Property(bool, lambda self: bool(getattr(self, "_key", "")), lambda self, v: None)


@register("ctk.ctkCheckBox")
class ctkCheckBox(QCheckBox):
    pass


@register("ctk.ctkPushButton")
class ctkPushButton(QPushButton):
    pass


@register("ctk.ctkMenuButton")
class ctkMenuButton(QPushButton):
    pass


@register("ctk.ctkDoubleSpinBox")
class ctkDoubleSpinBox(QDoubleSpinBox):
    pass


@register("ctk.ctkSearchBox")
class ctkSearchBox(QLineEdit):
    def __init__(self, parent=None):
        super().__init__(parent)
        self.setPlaceholderText("Search...")


@register("ctk.ctkExpandableWidget")
class ctkExpandableWidget(QWidget):
    pass


@register("ctk.ctkFittedTextBrowser")
class ctkFittedTextBrowser(QTextBrowser):
    """A text browser as high as its text."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.textChanged.connect(self.updateGeometry)

    def sizeHint(self) -> QSize:
        document = self.document().clone()
        document.setTextWidth(max(self.viewport().width(), 200))
        return QSize(200, int(document.size().height()) + 2 * self.frameWidth())

    def minimumSizeHint(self) -> QSize:
        return QSize(100, self.sizeHint().height())

    def resizeEvent(self, event):
        super().resizeEvent(event)
        self.updateGeometry()


@register("ctk.ctkColorPickerButton")
class ctkColorPickerButton(QPushButton):
    colorChanged = Signal(QColor)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._color = QColor(0, 0, 0)

    def setColor(self, color) -> None:
        if color != self._color:
            self._color = QColor(color)
            self.update()
            self.colorChanged.emit(self._color)

    def paintEvent(self, event):
        super().paintEvent(event)
        QPainter(self).fillRect(self.rect().adjusted(6, 6, -6, -6), self._color)

    color = Property(QColor, lambda self: self._color, setColor)


__all__ = [n for n in dir() if n.startswith("ctk")]
