"""Stand-in for ``slicer.parameterNodeWrapper``: typed attributes kept in a vtkMRMLScriptedModuleNode and bound to
widgets.

Same keys in the node, same refusals as Slicer's documentation states them (a union of node types needs None, a combo
box of strings needs Choice, a slider needs bounds). Not stood in for: parameterPack, createGui, FloatRange, and types
not listed in ``_stored_as``.
"""

from __future__ import annotations

import enum
import pathlib
import types
import typing
import weakref
from dataclasses import dataclass
from typing import Annotated, Any, Union

from .signals import drop_observer, hold_observer

PATHS = (pathlib.Path, pathlib.PurePath, pathlib.PosixPath, pathlib.PurePosixPath)
PROPERTY_NAME = "SlicerParameterName"


# -- annotations -----------------------------------------------------------------------------------------------------


class Validator:
    def validate(self, value) -> None:
        raise NotImplementedError


class NotNone(Validator):
    def validate(self, value) -> None:
        if value is None:
            raise ValueError("None is not allowed here")


class IsInstance(Validator):
    def __init__(self, classtype):
        self.classtype = classtype

    def validate(self, value) -> None:
        if value is not None and not isinstance(value, self.classtype):
            raise TypeError(f"{value!r} is not of type {self.classtype}")


class WithinRange(Validator):
    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not between {self.minimum} and {self.maximum}")


class Minimum(Validator):
    def __init__(self, minimum):
        self.minimum = minimum

    def validate(self, value) -> None:
        if value < self.minimum:
            raise ValueError(f"{value} is less than {self.minimum}")


class Maximum(Validator):
    def __init__(self, maximum):
        self.maximum = maximum

    def validate(self, value) -> None:
        if value > self.maximum:
            raise ValueError(f"{value} is more than {self.maximum}")


class Choice(Validator):
    def __init__(self, choices):
        self.choices = choices

    def validate(self, value) -> None:
        if value not in self.choices:
            raise ValueError(f"{value!r} is not one of {self.choices}")


class Exclude(Validator):
    def __init__(self, excludedValues):
        self.excludedValues = excludedValues

    def validate(self, value) -> None:
        if value in self.excludedValues:
            raise ValueError(f"{value!r} is excluded")


@dataclass
class Decimals:
    value: int


@dataclass
class SingleStep:
    value: float


@dataclass
class Label:
    label: str


class Default:
    def __init__(self, value=None, *, generator=None):
        self._value, self._generator = value, generator

    @property
    def value(self):
        return self._generator() if self._generator is not None else self._value


def splitAnnotations(possiblyAnnotatedType):
    """``Annotated[float, WithinRange(0, 1)]`` -> ``(float, (WithinRange(0, 1),))``."""
    if typing.get_origin(possiblyAnnotatedType) is Annotated:
        return possiblyAnnotatedType.__origin__, possiblyAnnotatedType.__metadata__
    return possiblyAnnotatedType, ()


def unannotatedType(possiblyAnnotatedType):
    return splitAnnotations(possiblyAnnotatedType)[0]


def findFirstAnnotation(annotationsList, annotationType):
    return next((a for a in annotationsList if isinstance(a, annotationType)), None)


def _is_node_type(kind) -> bool:
    import slicer

    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


def isNodeOrUnionOfNodes(datatype) -> bool:
    kind = unannotatedType(datatype)
    if typing.get_origin(kind) is Union:
        return all(_is_node_type(a) or a is type(None) for a in typing.get_args(kind))
    return _is_node_type(kind)


def getNodeTypes(datatype) -> tuple:
    kind = unannotatedType(datatype)
    kinds = typing.get_args(kind) if typing.get_origin(kind) is Union else (kind,)
    return tuple(k.__name__ for k in kinds if _is_node_type(k))


# -- how a value of a type is kept in the node -----------------------------------------------------------------------


class Stored:
    """One type's way into the node's parameters (strings) and references. Slicer calls this a serializer."""

    kind: Any = None
    cached = True

    def default(self):
        return None

    def check(self, value) -> None:
        pass

    def isIn(self, node, name: str) -> bool:
        return node.HasParameter(name)

    def write(self, node, name: str, value) -> None:
        raise NotImplementedError

    def read(self, node, name: str):
        raise NotImplementedError

    def remove(self, node, name: str) -> None:
        node.UnsetParameter(name)


class StoredText(Stored):
    """str, int, float and paths: the text that ``str`` gives."""

    def __init__(self, kind):
        self.kind = kind

    def default(self):
        return self.kind() if self.kind not in (int, float) else 0

    def check(self, value) -> None:
        NotNone().validate(value)
        IsInstance((int, float) if self.kind is float else self.kind).validate(value)

    def write(self, node, name, value) -> None:
        node.SetParameter(name, str(value))

    def read(self, node, name):
        return self.kind(node.GetParameter(name))


class StoredBool(StoredText):
    def write(self, node, name, value) -> None:
        node.SetParameter(name, "True" if value else "False")

    def read(self, node, name):
        return node.GetParameter(name) == "True"


class StoredEnum(StoredText):
    def default(self):
        return next(iter(self.kind))

    def check(self, value) -> None:
        IsInstance(self.kind).validate(value)

    def write(self, node, name, value) -> None:
        node.SetParameter(name, value.name)

    def read(self, node, name):
        return self.kind[node.GetParameter(name)]


class StoredNode(Stored):
    """A node: a reference of that role, and an empty parameter that says that there is a value."""

    def __init__(self, kind):
        self.kind = kind

    def check(self, value) -> None:
        IsInstance(self.kind).validate(value)

    def write(self, node, name, value) -> None:
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node, name):
        return node.GetNodeReference(name)

    def remove(self, node, name) -> None:
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class StoredNone(Stored):
    kind = type(None)

    def check(self, value) -> None:
        if value is not None:
            raise ValueError("only None is allowed here")

    def write(self, node, name, value) -> None:
        node.SetParameter(name, "True")

    def read(self, node, name):
        return None


class StoredUnion(Stored):
    """One of several types; which one is told by the key's number. None must be one of them where it can occur."""

    def __init__(self, parts):
        self.parts = parts

    def default(self):
        if len(self.parts) == 2 and isinstance(self.parts[1], StoredNone):
            return None
        return self.parts[0].default()

    def _part(self, value) -> int:
        for i, part in enumerate(self.parts):
            # Slicer chooses by the type of the value: None belongs to no node type.
            fits = isinstance(part, StoredNone) if value is None else not isinstance(part, StoredNone)
            if fits:
                try:
                    part.check(value)
                    return i
                except (TypeError, ValueError):
                    continue
        raise TypeError(f"{value!r} fits none of the types of this union (a union that may be empty needs None in it)")

    def check(self, value) -> None:
        self._part(value)

    def isIn(self, node, name) -> bool:
        return any(part.isIn(node, f"{name}_{i}") for i, part in enumerate(self.parts))

    def write(self, node, name, value) -> None:
        import slicer

        with slicer.util.NodeModify(node):
            index = self._part(value)
            self.remove(node, name)
            self.parts[index].write(node, f"{name}_{index}", value)

    def read(self, node, name):
        for i, part in enumerate(self.parts):
            if part.isIn(node, f"{name}_{i}"):
                return part.read(node, f"{name}_{i}")
        raise KeyError(name)

    def remove(self, node, name) -> None:
        for i, part in enumerate(self.parts):
            part.remove(node, f"{name}_{i}")


class StoredTuple(Stored):
    """A tuple: one numbered key an element."""

    def __init__(self, parts):
        self.parts = parts

    def default(self):
        return tuple(p.default() for p in self.parts)

    def check(self, value) -> None:
        if len(tuple(value)) != len(self.parts):
            raise ValueError(f"{len(self.parts)} values are needed")
        for part, v in zip(self.parts, value, strict=True):
            part.check(v)

    def isIn(self, node, name) -> bool:
        return self.parts[0].isIn(node, f"{name}_0")

    def write(self, node, name, value) -> None:
        for i, (part, v) in enumerate(zip(self.parts, value, strict=True)):
            part.write(node, f"{name}_{i}", v)

    def read(self, node, name):
        return tuple(part.read(node, f"{name}_{i}") for i, part in enumerate(self.parts))


class StoredList(Stored):
    """A list: its length and one numbered key an element. Read values are copies: change the list by assigning a new
    one."""

    cached = False

    def __init__(self, part):
        self.part = part

    def default(self):
        return []

    def check(self, value) -> None:
        for v in value:
            self.part.check(v)

    def isIn(self, node, name) -> bool:
        return node.HasParameter(f"{name}_len")

    def _length(self, node, name) -> int:
        return int(node.GetParameter(f"{name}_len") or 0)

    def write(self, node, name, value) -> None:
        import slicer

        with slicer.util.NodeModify(node):
            before = self._length(node, name)
            for i, v in enumerate(value):
                self.part.write(node, f"{name}_{i}", v)
            node.SetParameter(f"{name}_len", str(len(value)))
            for i in range(len(value), before):
                self.part.remove(node, f"{name}_{i}")

    def read(self, node, name):
        # A tuple: what Slicer returns can be changed in place there, and this could not.
        return tuple(self.part.read(node, f"{name}_{i}") for i in range(self._length(node, name)))


def _stored_as(datatype) -> tuple[Stored, list[Validator]]:
    kind, annotations = splitAnnotations(datatype)
    validators = [a for a in annotations if isinstance(a, Validator)]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is bool:
        stored = StoredBool(bool)
    elif kind in (int, float, str, *PATHS):
        stored = StoredText(kind)
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        stored = StoredEnum(kind)
    elif _is_node_type(kind):
        stored = StoredNode(kind)
    elif kind is type(None):
        stored = StoredNone()
    elif origin is Union:
        stored = StoredUnion([_stored_as(a)[0] for a in arguments])
    elif origin is list:
        stored = StoredList(_stored_as(arguments[0])[0])
    elif origin is tuple:
        stored = StoredTuple([_stored_as(a)[0] for a in arguments])
    elif isinstance(kind, getattr(types, "UnionType", ())):
        raise TypeError(f"{kind}: Slicer's wrapper knows typing.Union, not the | of types")
    else:
        raise TypeError(f"a parameter node cannot keep a {kind} (host/parameter_node.py)")
    return stored, validators


# -- widgets ---------------------------------------------------------------------------------------------------------


class GuiConnector:
    """One parameter and one widget: which signal, how to read and write."""

    def __init__(self, widget, signal: str, read, write):
        self._widget, self._signal, self._read, self._write = widget, signal, read, write
        self._callback = None

    def widget(self):
        return self._widget

    def read(self):
        return self._read()

    def write(self, value) -> None:
        self._write(value)

    def changed(self) -> None:
        if self._callback:
            self._callback()

    def onChanged(self, callback) -> None:
        self._callback = callback
        signal = getattr(self._widget, self._signal)
        if callback is None:
            signal.disconnect(self.changed)
        else:
            signal.connect(self.changed)


def _attribute(widget, signal: str, name: str, convert=lambda v: v, back=lambda v: v) -> GuiConnector:
    return GuiConnector(
        widget, signal, lambda: convert(getattr(widget, name)), lambda v: setattr(widget, name, back(v))
    )


def _set_bounds(widget, annotations, unbounded: tuple, must_be_bounded: bool) -> None:
    decimals, step = findFirstAnnotation(annotations, Decimals), findFirstAnnotation(annotations, SingleStep)
    if decimals is not None:
        widget.decimals = decimals.value
    if step is not None:
        widget.singleStep = step.value
    within = findFirstAnnotation(annotations, WithinRange)
    low = within or findFirstAnnotation(annotations, Minimum)
    high = within or findFirstAnnotation(annotations, Maximum)
    if must_be_bounded and (low is None or high is None):
        raise RuntimeError("a slider needs bounds: annotate the parameter with WithinRange")
    # As in Slicer, the bounds of the .ui file are replaced, by the annotation's or by none.
    widget.minimum = low.minimum if low is not None else unbounded[0]
    widget.maximum = high.maximum if high is not None else unbounded[1]


def _choices(widget, labels, values) -> GuiConnector:
    widget.clear()
    for label in labels:
        widget.addItem(label)

    def write(value):
        widget.currentIndex = values.index(value)

    return GuiConnector(widget, "currentIndexChanged", lambda: values[widget.currentIndex], write)


def createGuiConnector(widget, datatype) -> GuiConnector:
    """The connector of a widget and a type; RuntimeError when Slicer has none (it looks at the widget's exact
    class)."""
    import ctk
    import qt
    import slicer

    kind, annotations = splitAnnotations(datatype)
    cls = type(widget)
    if kind is bool and cls is qt.QCheckBox:
        return _attribute(widget, "stateChanged", "checked")
    if kind is bool and cls is qt.QPushButton:
        widget.checkable = True
        return _attribute(widget, "toggled", "checked")
    if kind is int and cls in (qt.QSlider, qt.QSpinBox):
        _set_bounds(widget, annotations, (-(2**31), 2**31 - 1), cls is qt.QSlider)
        return _attribute(widget, "valueChanged", "value")
    if kind is float and cls in (qt.QDoubleSpinBox, ctk.ctkSliderWidget):
        _set_bounds(widget, annotations, (float("-inf"), float("inf")), cls is ctk.ctkSliderWidget)
        return _attribute(widget, "valueChanged", "value")
    if kind in (int, float, str, bool) and cls is qt.QComboBox:
        choice = findFirstAnnotation(annotations, Choice)
        if choice is None:
            raise RuntimeError("a combo box is bound to a parameter only if its type is annotated with Choice")
        return _choices(widget, [str(c) for c in choice.choices], list(choice.choices))
    if isinstance(kind, type) and issubclass(kind, enum.Enum) and cls is qt.QComboBox:
        label = getattr(kind, "label", lambda e: e.name)
        return _choices(widget, [label(e) for e in kind], list(kind))
    if kind is str and cls is qt.QLineEdit:
        return _attribute(widget, "textChanged", "text")
    if kind is str and cls is qt.QTextEdit:
        return GuiConnector(widget, "textChanged", lambda: widget.toPlainText(), lambda v: widget.setPlainText(v))
    if kind in PATHS and cls is ctk.ctkPathLineEdit:
        return _attribute(widget, "currentPathChanged", "currentPath", kind, str)
    if kind in PATHS and cls is ctk.ctkDirectoryButton:
        return _attribute(widget, "directoryChanged", "directory", kind, str)
    if isNodeOrUnionOfNodes(datatype) and cls is slicer.qMRMLNodeComboBox:
        widget.nodeTypes = getNodeTypes(datatype)
        return GuiConnector(widget, "currentNodeChanged", widget.currentNode, widget.setCurrentNode)
    raise RuntimeError(f"Slicer cannot bind a parameter of type {datatype} to a {cls.__name__}")


def findChildWidgetForParameter(widget, parameter: str):
    import qt

    for child in widget.findChildren(qt.QWidget):
        if child.property(PROPERTY_NAME) == parameter:
            return child
    return None


# -- the wrapper -----------------------------------------------------------------------------------------------------


@dataclass
class ParameterInfo:
    basename: str
    stored: Stored
    validators: list
    default: Default
    unalteredType: Any


class _Value:
    """One parameter of one node; remembered as long as the node does not change."""

    def __init__(self, info: ParameterInfo, node, prefix: str):
        self.info, self.node, self.name = info, node, prefix + info.basename
        if not info.stored.isIn(node, self.name):
            self.write(info.default.value)

    def write(self, value) -> None:
        self.info.stored.check(value)
        for validator in self.info.validators:
            validator.validate(value)
        self.info.stored.write(self.node, self.name, value)

    def read(self):
        if not self.info.stored.isIn(self.node, self.name):
            self.write(self.info.default.value)
        return self.info.stored.read(self.node, self.name)


def _make_property(name: str):
    return property(lambda self: self.getValue(name), lambda self, value: self.setValue(name, value))


def _init(self, parameterNode, prefix: str | None = None):
    self.parameterNode = parameterNode
    self._guis: dict[int, dict[str, GuiConnector]] = {}
    self._gui_observers: dict[int, int] = {}
    self._next_tag = 0
    self._updating = False
    self._values = {}
    for name, info in self.allParameters.items():
        self._values[name] = _Value(info, parameterNode, prefix or "")


def _value(self, name: str) -> _Value:
    if name not in self.allParameters:
        raise ValueError(f"there is no parameter {name!r}; there are {', '.join(self.allParameters)}")
    return self._values[name]


def _connect_parameters(self, mapping) -> int:
    import vtk

    for name in mapping:
        _value(self, name)
    connectors = {
        n: w if isinstance(w, GuiConnector) else createGuiConnector(w, self.dataType(n)) for n, w in mapping.items()
    }
    tag = self._next_tag
    self._next_tag += 1
    self._guis[tag] = connectors

    def to_parameter(name, connector):
        def changed():
            if not self._updating:
                # The whole node is said to be modified once, after the value is in it.
                import slicer

                with slicer.util.NodeModify(self):
                    self.setValue(name, connector.read())

        return changed

    for name, connector in connectors.items():
        connector.write(self.getValue(name))
        connector.onChanged(to_parameter(name, connector))

    reference = weakref.ref(self)

    def to_gui(_caller=None, _event=None):
        self = reference()
        if self is None or self._updating:
            return
        self._updating = True
        try:
            for gui in list(self._guis.values()):
                for name, connector in gui.items():
                    connector.write(self.getValue(name))
        finally:
            self._updating = False

    self._gui_observers[tag] = hold_observer(self.parameterNode, vtk.vtkCommand.ModifiedEvent, to_gui)
    return tag


def _connect_gui(self, gui) -> int:
    import qt

    is_widget = getattr(gui, "isWidgetType", lambda: False)()
    widgets = gui.findChildren(qt.QWidget) if is_widget else gui.__dict__.values()
    mapping = {w.property(PROPERTY_NAME): w for w in widgets if w.property(PROPERTY_NAME)}
    return _connect_parameters(self, mapping)


def _disconnect_gui(self, guiTag) -> None:
    connectors = self._guis.pop(guiTag, None)
    if connectors is not None:
        drop_observer(self.parameterNode, self._gui_observers.pop(guiTag))
        for connector in connectors.values():
            connector.onChanged(None)


def _data_type(cls):
    def dataType(membername):
        return cls.allParameters[membername].unalteredType

    return staticmethod(dataType)


_MEMBERS = {
    "_is_parameter_node_wrapper": True,
    "default": lambda self, paramName: _value(self, paramName).info.default,
    "isCached": lambda self, paramName: _value(self, paramName).info.stored.cached,
    "getValue": lambda self, name: _value(self, name).read(),
    "setValue": lambda self, name, value: _value(self, name).write(value),
    "connectGui": _connect_gui,
    "connectParametersToGui": _connect_parameters,
    "disconnectGui": _disconnect_gui,
    "StartModify": lambda self: self.parameterNode.StartModify(),
    "EndModify": lambda self, wasModified: self.parameterNode.EndModify(wasModified),
    "AddObserver": lambda self, event, callback, priority=0.0: self.parameterNode.AddObserver(
        event, callback, priority
    ),
    "RemoveObserver": lambda self, tag: self.parameterNode.RemoveObserver(tag),
    "Modified": lambda self: self.parameterNode.Modified(),
}


def _process(cls):
    parameters = {}
    for name, datatype in typing.get_type_hints(cls, include_extras=True).items():
        try:
            stored, validators = _stored_as(datatype)
        except TypeError as error:
            raise TypeError(f"{cls.__name__}.{name}: {error}") from None
        if hasattr(cls, name):
            default = Default(getattr(cls, name))
        else:
            default = findFirstAnnotation(splitAnnotations(datatype)[1], Default) or Default(stored.default())
        parameters[name] = ParameterInfo(name, stored, validators, default, datatype)
    for name in parameters:
        if name in _MEMBERS or name in ("allParameters", "dataType", "parameterNode"):
            raise ValueError(f"{name!r} is a name that the wrapper uses itself")
        setattr(cls, name, _make_property(name))
    cls.allParameters = parameters
    cls.__init__ = _init
    cls.dataType = _data_type(cls)
    for name, member in _MEMBERS.items():
        setattr(cls, name, member)
    return cls


def parameterNodeWrapper(classtype=None):
    """Class decorator: annotated fields become attributes kept in the parameter node given to the constructor."""
    return _process if classtype is None else _process(classtype)


def isParameterNodeWrapper(classOrObj) -> bool:
    return getattr(classOrObj, "_is_parameter_node_wrapper", False)


def parameterPack(classtype=None):
    raise NotImplementedError("the host does not stand in for parameterPack")


EXPORTED = [
    "Choice",
    "Decimals",
    "Default",
    "Exclude",
    "GuiConnector",
    "IsInstance",
    "Label",
    "Maximum",
    "Minimum",
    "NotNone",
    "SingleStep",
    "Validator",
    "WithinRange",
    "createGuiConnector",
    "findChildWidgetForParameter",
    "findFirstAnnotation",
    "getNodeTypes",
    "isNodeOrUnionOfNodes",
    "isParameterNodeWrapper",
    "parameterNodeWrapper",
    "parameterPack",
    "splitAnnotations",
    "unannotatedType",
]


def make_module() -> types.ModuleType:
    """The module object to be found as ``slicer.parameterNodeWrapper``."""
    module = types.ModuleType("slicer.parameterNodeWrapper", __doc__)
    for name in EXPORTED:
        setattr(module, name, globals()[name])
    module.__all__ = EXPORTED
    return module
