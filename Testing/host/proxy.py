"""What a panel holds instead of a PySide6 object: the same object, seen as Slicer's PythonQt shows it.

PythonQt and PySide6 differ in what a name is: ``button.text`` is a string in Slicer and a function in PySide6, an
enumeration is an integer there and an ``enum.Enum`` here, lists come back as tuples, ``connect('clicked()', f)``
exists only there. A proxy turns one into the other on every access, for objects that the panel makes and for those
that Qt hands out, and lets through only names that are in Slicer's list (``api.py``). PySide6's ``true_property``
feature would do the first of these alone, and for no object's enumerations.
"""

from __future__ import annotations

import enum
import inspect
import re
import sys
import traceback
from types import FunctionType, MethodType

import shiboken6
from PySide6 import QtCore, QtGui, QtWidgets
from shibokensupport.signature import get_signature

from .api import Names, names_of

QT_MODULES = (QtCore, QtGui, QtWidgets)
# Exceptions raised in slots: PythonQt prints them and goes on, so a test would not see them. See host.Host.check().
slot_errors: list[BaseException] = []
# What the host does in another way than PySide6: {class name: {member name: function}}. Filled by quirks.py and
# dialogs.py.
method_overrides: dict[str, dict] = {}
static_overrides: dict[str, dict] = {}
property_overrides: dict[str, dict] = {}  # name -> (getter, setter or None)
# The host's own classes (widgets of CTK and MRML, slicer.app ...): {class: key in Slicer's list}.
host_classes: dict[type, str] = {}
_proxy_classes: dict[str, type] = {}
_open_names: dict[type, Names] = {}
PYTHON_WORDS = ("exec", "raise", "print", "del")


def register(key: str):
    """Class decorator: objects of this class are shown to panels as the class ``key`` of Slicer's list."""

    def decorate(cls):
        host_classes[cls] = key
        return cls

    return decorate


def implementation(name: str) -> type | None:
    """The PySide6 class of this name, or None."""
    for module in QT_MODULES:
        found = getattr(module, name, None)
        if inspect.isclass(found):
            return found
    return None


def _open_names_of(cls: type) -> Names:
    """Names for a Qt class that the list does not have: what Qt has, properties being attributes."""
    if cls not in _open_names:
        properties = set()
        meta = getattr(cls, "staticMetaObject", None)
        if meta is not None:
            properties = {meta.property(i).name() for i in range(meta.propertyCount())}
        members = {n for n in dir(cls) if not n.startswith("_")} | {"className", "delete"}
        signals = {n for n in members if isinstance(getattr(cls, n, None), QtCore.Signal)}
        enums = set()
        for kind in (getattr(cls, n, None) for n in members):
            if inspect.isclass(kind) and issubclass(kind, enum.Enum):
                enums.update(kind.__members__)
        _open_names[cls] = Names(
            "qt." + cls.__name__, properties | enums, members - properties - signals - enums, signals, open_list=True
        )
    return _open_names[cls]


def names_for(cls: type) -> Names:
    """The names that objects of a class show: by the nearest base class that Slicer's list has."""
    for base in cls.__mro__:
        if base in host_classes:
            return names_of(host_classes[base])
        if base.__module__.startswith("PySide6"):
            return names_of("qt." + base.__name__) or _open_names_of(base)
    raise TypeError(f"the host has no names for {cls}")


# -- values across the border ----------------------------------------------------------------------------------------


def wrap(value):
    """Show a value of PySide6 as PythonQt shows it: integers for enumerations, tuples for lists, proxies for
    objects."""
    if value is None or isinstance(value, (str, bytes, float)):
        return value
    if isinstance(value, enum.Enum):
        return int(value.value)
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(wrap(v) for v in value)
    if isinstance(value, dict):
        return {k: wrap(v) for k, v in value.items()}
    if isinstance(value, shiboken6.Shiboken.Object) or type(value) in host_classes:
        return _proxy_of(value)
    return value


def unwrap(value):
    """Take the PySide6 object out of a proxy; containers likewise."""
    if isinstance(value, Proxy):
        return value._target
    if isinstance(value, ProxyClass):
        return value._implementation
    if isinstance(value, list):
        return [unwrap(v) for v in value]
    if isinstance(value, tuple):
        return tuple(unwrap(v) for v in value)
    if isinstance(value, dict):
        return {k: unwrap(v) for k, v in value.items()}
    return value


def _proxy_of(target):
    keep = isinstance(target, QtCore.QObject) or type(target) in host_classes
    if keep:
        found = target.__dict__.get("_host_proxy")
        if found is not None:
            return found
    names = names_for(type(target))
    proxy = object.__new__(proxy_class(names, type(target)))
    object.__setattr__(proxy, "_target", target)
    object.__setattr__(proxy, "_names", names)
    if keep:
        # One object, one proxy, as in PythonQt: `a.parent() is b` holds.
        target.__dict__["_host_proxy"] = proxy
    return proxy


def _signatures(function) -> list:
    """PySide6's signatures of a function; of an inherited method, the signatures of the class that has it."""
    candidates = [function]
    owner = getattr(function, "__self__", None)
    if owner is not None:
        cls = owner if inspect.isclass(owner) else type(owner)
        candidates += [base.__dict__[function.__name__] for base in cls.__mro__ if function.__name__ in base.__dict__]
    for candidate in candidates:
        try:
            found = get_signature(candidate)
        except Exception:
            continue
        if found is not None:
            return found if isinstance(found, list) else [found]
    return []


def _enum_class(annotation) -> type | None:
    """The enumeration class of a parameter that PySide6 annotates (also one among several), or None."""
    if inspect.isclass(annotation) and issubclass(annotation, enum.Enum):
        return annotation
    for module, path in re.findall(r"PySide6\.(Qt\w+)\.([\w.]+)", str(annotation)):
        value = sys.modules.get("PySide6." + module)
        for part in path.split("."):
            value = getattr(value, part, None)
        if inspect.isclass(value) and issubclass(value, enum.Enum):
            return value
    return None


def call(function, arguments, where: str):
    """Call a PySide6 function as PythonQt would: integers are taken where an enumeration is meant."""
    arguments = [unwrap(a) for a in arguments]
    try:
        return wrap(function(*arguments))
    except TypeError as first:
        if isinstance(function, (FunctionType, MethodType)):
            raise
        for signature in _signatures(function):
            kinds = [p.annotation for p in signature.parameters.values() if p.name != "self"]
            changed = list(arguments)
            for i, (value, kind) in enumerate(zip(arguments, kinds, strict=False)):
                cls = _enum_class(kind) if isinstance(value, int) and not isinstance(value, bool) else None
                if cls is not None:
                    try:
                        changed[i] = cls(value)
                    except ValueError:
                        break
            else:
                if any(a is not b for a, b in zip(changed, arguments, strict=True)):
                    try:
                        return wrap(function(*changed))
                    except TypeError:
                        continue
        raise TypeError(f"{where}: {first}") from None


# -- signals ---------------------------------------------------------------------------------------------------------


def guarded(function):
    """A slot that prints and records what it raises and goes on, as PythonQt does."""

    def slot(*arguments):
        try:
            return function(*arguments)
        except Exception as error:
            traceback.print_exc()
            slot_errors.append(error)
            return None

    return slot


def accepted(function, count: int) -> int:
    """How many of ``count`` signal arguments PythonQt passes to a Python callable: as many as it has positional
    parameters."""
    code = getattr(function, "__code__", None)
    bound = 0
    if isinstance(function, MethodType):
        code = getattr(function.__func__, "__code__", None)
        bound = 1
    if code is None or code.co_flags & inspect.CO_VARARGS:
        return count
    return min(count, code.co_argcount - bound)


def _signal_variants(target, name: str) -> list[list[str]]:
    """Parameter types of every overload of a signal, the longest first."""
    meta = target.metaObject()
    found = []
    for i in range(meta.methodCount()):
        method = meta.method(i)
        if method.methodType() == QtCore.QMetaMethod.MethodType.Signal and method.name().data().decode() == name:
            found.append([t.data().decode() for t in method.parameterTypes()])
    return sorted(found, key=len, reverse=True)


def _fixed_arity(function, count: int):
    """PySide6 chooses a signal's overload by the number of parameters of the slot: make that number plain."""
    return [
        lambda: function(),
        lambda a: function(a),
        lambda a, b: function(a, b),
        lambda a, b, c: function(a, b, c),
        lambda a, b, c, d: function(a, b, c, d),
    ][count]


def connect_signal(target, names: Names, name: str, function, types: list[str] | None = None) -> bool:
    """Connect a Python callable. ``types``: the parameter types named in the call (``clicked()``), else all are
    passed."""
    where = f"{names.key}.{name}"
    if not callable(function):
        raise TypeError(f"{where}: the slot {function!r} cannot be called")
    variants = _signal_variants(target, name) or [[]]
    full = variants[0]
    if types is not None and len(types) > len(full):
        raise ValueError(f"{where}: Slicer's signal has not the parameters ({', '.join(types)})")
    passed = len(full) if types is None else len(types)
    slot = guarded(function)

    def receive(*arguments):
        values = [wrap(v) for v in arguments[:passed]]
        for i, kind in enumerate(types or ()):
            # currentNodeChanged(bool) exists beside currentNodeChanged(vtkMRMLNode*).
            if kind == "bool" and not isinstance(values[i], bool):
                values[i] = values[i] is not None
        slot(*values[: accepted(function, passed)])

    signal = getattr(target, name)
    connected = _fixed_arity(receive, len(full))
    signal.connect(connected)
    connections = target.__dict__.setdefault("_host_connections", [])
    connections.append((name, function, signal, connected))
    return True


def disconnect_signal(target, names: Names, name: str, function=None) -> bool:
    """Undo connect_signal for one callable (or all of a signal). False when it was not connected."""
    connections = target.__dict__.get("_host_connections", [])
    # `==`, not `is`: a bound method is a new object each time it is looked up.
    found = [c for c in connections if c[0] == name and (function is None or c[1] == function)]
    for entry in found:
        connections.remove(entry)
        entry[2].disconnect(entry[3])
    return bool(found)


def parse_signal(names: Names, text: str) -> tuple[str, list[str] | None]:
    """``"clicked(bool)"`` -> ``("clicked", ["bool"])``; refuses a signal that the class has not in Slicer."""
    found = re.fullmatch(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*", text)
    if not found:
        raise ValueError(f"{names.key}: {text!r} is not a signal's signature")
    name, inside = found.groups()
    if name not in names.signals:
        raise AttributeError(f"{names.key} has no signal {name!r} in Slicer")
    if inside is None:
        return name, None
    return name, [t.strip() for t in inside.split(",") if t.strip()]


class SignalProxy:
    """``button.clicked``: has connect and disconnect; calling it emits, as in PythonQt."""

    def __init__(self, target, names: Names, name: str):
        self._target, self._names, self._name = target, names, name

    def connect(self, function) -> bool:
        return connect_signal(self._target, self._names, self._name, function)

    def disconnect(self, function=None) -> bool:
        return disconnect_signal(self._target, self._names, self._name, function)

    def emit(self, *arguments) -> None:
        getattr(self._target, self._name).emit(*[unwrap(a) for a in arguments])

    __call__ = emit

    def __repr__(self):
        return f"<signal {self._names.key}.{self._name}>"


class BoundMethod:
    """A method of a Qt object as a panel sees it."""

    def __init__(self, target, names: Names, name: str, function):
        self._target, self._names, self._name, self._function = target, names, name, function

    def __call__(self, *arguments, **keywords):
        where = f"{self._names.key}.{self._name}"
        if keywords:
            raise TypeError(f"{where}: PythonQt takes no keyword arguments ({', '.join(keywords)})")
        return call(self._function, arguments, where)

    def __eq__(self, other):
        return isinstance(other, BoundMethod) and (self._target, self._name) == (other._target, other._name)

    def __hash__(self):
        return hash((id(self._target), self._name))

    def __repr__(self):
        return f"<method {self._names.key}.{self._name}>"


# -- objects ---------------------------------------------------------------------------------------------------------


def _override(table: dict, cls: type, name: str):
    for base in cls.__mro__:
        found = table.get(base.__name__, {}).get(name)
        if found is not None:
            return found
    return None


class ProxyClass(type):
    """``qt.QPushButton``: makes objects, has Qt's static functions and, as integers, its enumerations."""

    def __new__(meta, name, bases, body, sealed=True):
        if sealed and bases:
            raise TypeError(
                f"{name}: the host does not stand in for Python classes derived from Qt's ({bases[0].__name__}); "
                "hold a widget instead of being one"
            )
        return super().__new__(meta, name, bases, body)

    def __init__(cls, name, bases, body, sealed=True):
        super().__init__(name, bases, body)

    def __call__(cls, *arguments, **keywords):
        if keywords:
            raise TypeError(f"{cls._names_of_class.key}: PythonQt takes no keyword arguments ({', '.join(keywords)})")
        make = _override(static_overrides, cls._implementation, "__new__") or cls._implementation
        return call(make, arguments, cls._names_of_class.key)

    def __instancecheck__(cls, value):
        # Not isinstance(value, Proxy): that would come back here.
        return Proxy in type(value).__mro__ and (cls is Proxy or isinstance(value._target, cls._implementation))

    def __subclasscheck__(cls, other):
        return cls is Proxy or issubclass(getattr(other, "_implementation", type), cls._implementation)

    def __getattr__(cls, name):
        if name.startswith("_"):
            raise AttributeError(name)
        names, implementation_class = cls._names_of_class, cls._implementation
        plain = name[:-1] if name[:-1] in PYTHON_WORDS else name
        if plain not in names:
            raise AttributeError(f"{names.key} has no {name!r} in Slicer")
        override = _override(static_overrides, implementation_class, plain)
        if override is not None:
            return lambda *arguments: wrap(override(*[unwrap(a) for a in arguments]))
        found = getattr(implementation_class, plain, None)
        if isinstance(found, enum.Enum):
            return int(found.value)
        if plain in getattr(implementation_class, "ENUMERATION", {}):
            return implementation_class.ENUMERATION[plain]
        if callable(found) and not isinstance(found, QtCore.Signal):
            return lambda *arguments: call(found, arguments, f"{names.key}.{name}")
        raise NotImplementedError(
            f"{names.key}.{name} exists in Slicer; the host does not stand in for it on the class"
        )


class Proxy(metaclass=ProxyClass, sealed=False):
    """One Qt object as a panel sees it. Attributes: see the module's docstring."""

    __slots__ = ("_target", "_names", "__weakref__")

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        target, names = self._target, self._names
        plain = name[:-1] if name[:-1] in PYTHON_WORDS and name.endswith("_") else name
        if plain in names.properties:
            return _read_property(target, names, plain)
        if plain in names.signals:
            return SignalProxy(target, names, plain)
        if plain in names.methods:
            special = _SPECIAL.get(plain)
            if special is not None:
                return BoundMethod(target, names, plain, MethodType(special, _Raw(target, names)))
            override = _override(method_overrides, type(target), plain)
            if override is not None:
                return BoundMethod(target, names, plain, MethodType(override, target))
            function = getattr(target, plain, None) or getattr(target, plain + "_", None)
            if function is None or not callable(function):
                raise NotImplementedError(f"{names.key}.{name}() exists in Slicer; the host does not stand in for it")
            return BoundMethod(target, names, plain, function)
        if isinstance(target, QtCore.QObject) and name.encode() in target.dynamicPropertyNames():
            return wrap(target.property(name))
        raise AttributeError(f"{names.key} has no {name!r} in Slicer")

    def __setattr__(self, name, value):
        target, names = self._target, self._names
        if name in names.properties:
            _write_property(target, names, name, unwrap(value))
        elif isinstance(target, QtCore.QObject) and name.encode() in target.dynamicPropertyNames():
            target.setProperty(name, unwrap(value))
        elif name in names:
            raise AttributeError(f"{names.key}.{name} is not a property in Slicer: it cannot be assigned")
        else:
            raise AttributeError(f"{names.key} has no {name!r} in Slicer, and new attributes are not allowed there")

    def __eq__(self, other):
        if not isinstance(other, Proxy):
            return False
        return self._target is other._target or (
            not isinstance(self._target, QtCore.QObject) and bool(self._target == other._target)
        )

    def __hash__(self):
        return id(self._target) if isinstance(self._target, QtCore.QObject) else hash(self._target)

    def __bool__(self):
        return not isinstance(self._target, shiboken6.Shiboken.Object) or shiboken6.isValid(self._target)

    def __dir__(self):
        return self._names.all()

    def __repr__(self):
        name = self._target.objectName() if isinstance(self._target, QtCore.QObject) and bool(self) else ""
        return f"<{self._names.key}{' ' + name if name else ''}>"


def proxy_class(names: Names, cls: type) -> type:
    """The class object of a key of Slicer's list (made once)."""
    found = _proxy_classes.get(names.key)
    if found is None:
        body = {
            "__slots__": (),
            "_implementation": cls,
            "_names_of_class": names,
            "__module__": names.key.split(".")[0],
        }
        found = ProxyClass(names.key.split(".", 1)[-1], (Proxy,), body, sealed=False)
        _proxy_classes[names.key] = found
    return found


def _read_property(target, names: Names, name: str):
    override = _override(property_overrides, type(target), name)
    if override is not None:
        return wrap(override[0](target))
    if isinstance(target, QtCore.QObject) and target.metaObject().indexOfProperty(name) >= 0:
        return wrap(target.property(name))
    found = getattr(type(target), name, None)
    if isinstance(found, enum.Enum):
        return int(found.value)
    if name in getattr(type(target), "ENUMERATION", {}):
        return type(target).ENUMERATION[name]
    if isinstance(found, property):
        return wrap(found.fget(target))
    if callable(found):
        return wrap(getattr(target, name)())
    raise NotImplementedError(f"{names.key}.{name} exists in Slicer; the host does not stand in for it")


def _write_property(target, names: Names, name: str, value) -> None:
    where = f"{names.key}.{name}"
    override = _override(property_overrides, type(target), name)
    if override is not None:
        if override[1] is None:
            raise AttributeError(f"{where} can only be read")
        override[1](target, value)
        return
    if isinstance(target, QtCore.QObject):
        index = target.metaObject().indexOfProperty(name)
        if index >= 0:
            if not target.metaObject().property(index).isWritable():
                raise AttributeError(f"{where} can only be read")
            if isinstance(value, tuple):
                value = list(value)
            if not target.setProperty(name, value):
                raise AttributeError(f"{where} does not take {value!r}")
            return
    found = getattr(type(target), name, None)
    if isinstance(found, property) and found.fset is not None:
        found.fset(target, value)
        return
    raise AttributeError(f"{where} can only be read")


# -- what PythonQt adds to every object ------------------------------------------------------------------------------


class _Raw:
    """Target and names together, as ``self`` of the functions below."""

    def __init__(self, target, names: Names):
        self.target, self.names = target, names


def _connect(self: _Raw, *arguments) -> bool:
    # connect('clicked()', f) or connect('clicked()', receiver, 'slot()')
    name, types = parse_signal(self.names, arguments[0])
    if len(arguments) == 2:
        return connect_signal(self.target, self.names, name, arguments[1], types)
    if len(arguments) == 3:
        receiver, slot = arguments[1], arguments[2].split("(")[0]
        return connect_signal(self.target, self.names, name, slot_of(receiver, slot), types)
    raise TypeError(f"{self.names.key}.connect takes (signal, callable) or (signal, receiver, slot)")


def slot_of(receiver, name: str):
    """A named slot of an object, for ``connect(signal, receiver, 'slot()')`` and the connections of a .ui file."""
    proxy = wrap(receiver)
    if name not in proxy._names.methods and name not in proxy._names.signals:
        raise AttributeError(f"{proxy._names.key} has no slot {name!r} in Slicer")
    return getattr(proxy, name)


def _disconnect(self: _Raw, *arguments) -> bool:
    if not arguments:
        raise NotImplementedError("disconnect() of everything: name the signal")
    name, _types = parse_signal(self.names, arguments[0])
    if len(arguments) == 3:
        return disconnect_signal(self.target, self.names, name, slot_of(arguments[1], arguments[2].split("(")[0]))
    return disconnect_signal(self.target, self.names, name, arguments[1] if len(arguments) > 1 else None)


def _class_name(self: _Raw) -> str:
    return self.names.key.split(".")[-1] if "(" not in self.names.key else type(self.target).__name__


def _inherits(self: _Raw, name: str) -> bool:
    return any(base.__name__ == name for base in type(self.target).__mro__)


def _delete(self: _Raw) -> None:
    shiboken6.delete(self.target)


def _matches(child, kind, name: str) -> bool:
    if name and child.objectName() != name:
        return False
    if kind is None:
        return True
    if isinstance(kind, str):
        return any(base.__name__ == kind for base in type(child).__mro__) or child.inherits(kind)
    return isinstance(child, kind)


def _find_children(self: _Raw, kind=None, name: str = "") -> list:
    return [c for c in self.target.findChildren(QtCore.QObject) if _matches(c, kind, name)]


def _find_child(self: _Raw, kind=None, name: str = ""):
    found = _find_children(self, kind, name)
    return found[0] if found else None


def _help(self: _Raw) -> None:
    print("\n".join(self.names.all()))


_SPECIAL = {
    "connect": _connect,
    "disconnect": _disconnect,
    "className": _class_name,
    "inherits": _inherits,
    "delete": _delete,
    "findChildren": _find_children,
    "findChild": _find_child,
    "help": _help,
}
