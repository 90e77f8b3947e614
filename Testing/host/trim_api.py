"""Cut api.json from Slicer's list of names: ``python Testing/host/trim_api.py [../shared/slicer_api.json]``.

Only facts are kept (which names a class has), only for the classes that a panel may touch, and only once where many
classes share them. A new widget class in a panel: add it to KEPT and run this again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

KEPT = """
ctk.ctkCheckBox ctk.ctkCheckableComboBox ctk.ctkCollapsibleButton ctk.ctkCollapsibleGroupBox ctk.ctkColorPickerButton
ctk.ctkComboBox ctk.ctkDirectoryButton ctk.ctkDoubleRangeSlider ctk.ctkDoubleSlider ctk.ctkDoubleSpinBox
ctk.ctkExpandableWidget ctk.ctkFittedTextBrowser ctk.ctkMenuButton ctk.ctkMessageBox ctk.ctkPathLineEdit
ctk.ctkPushButton
ctk.ctkRangeWidget ctk.ctkSearchBox ctk.ctkSliderWidget
slicer.qMRMLCheckableNodeComboBox slicer.qMRMLCollapsibleButton slicer.qMRMLNodeComboBox slicer.qMRMLPlotView
slicer.qMRMLPlotWidget slicer.qMRMLRangeWidget slicer.qMRMLSegmentSelectorWidget slicer.qMRMLSegmentationShow3DButton
slicer.qMRMLSegmentsTableView slicer.qMRMLSliderWidget slicer.qMRMLSliceView slicer.qMRMLSpinBox
slicer.qMRMLSubjectHierarchyComboBox slicer.qMRMLTableView slicer.qMRMLTableWidget slicer.qMRMLThreeDView
slicer.qMRMLWidget
slicer.qSlicerMainWindow slicer.qSlicerModuleSelectorToolBar slicer.qSlicerScriptedLoadableModule
slicer.qSlicerScriptedLoadableModuleWidget slicer.qSlicerWidget
""".split()
PREFIXES = ("qt.", "slicer.app", "slicer.modules.")
KINDS = ("property", "method", "signal")


def trim(full: dict) -> dict:
    """Return the kept part of Slicer's list; a widget's QWidget names and a QObject's own are factored out."""
    classes = {k: v for k, v in full["classes"].items() if k in KEPT or k.startswith(PREFIXES)}
    missing = [k for k in KEPT if k not in classes]
    if missing:
        raise KeyError(f"not in Slicer's list: {missing}")
    # What every QObject has (connect, objectName ...): the methods of QTimer that a bare QObject such as QSettings
    # shares.
    qobject = set(full["classes"]["qt.QTimer"]["method"]) & set(full["classes"]["qt.QSettings"]["method"])
    out = {}
    for key, entry in sorted(classes.items()):
        kept = {}
        methods = set(entry.get("method", ()))
        if not entry.get("widget") and key != "qt.QWidget" and qobject <= methods:
            kept["qobject"] = True
            methods -= qobject
        if entry.get("widget"):
            kept["widget"] = True
        for kind in KINDS:
            values = sorted(methods if kind == "method" else entry.get(kind, ()))
            if values:
                kept[kind] = values
        out[key] = kept
    out = {key: _without_base(key, entry, out) for key, entry in out.items()}
    return {
        "about": full["about"],
        "qobject": sorted(qobject),
        "modules": full["modules"]["names"],
        "classes": out,
        "python": {
            m: {n: v for n, v in names.items() if isinstance(v, str) or m.endswith("LoadableModule")}
            for m, names in full["python"].items()
        },
    }


def _without_base(key: str, entry: dict, entries: dict) -> dict:
    """Write an entry as another class's names and its own: the largest other class that has nothing which this one
    lacks."""
    best, saved = None, 3
    for other, base in entries.items():
        size = sum(len(base.get(kind, ())) for kind in KINDS)
        own_size = sum(len(entry.get(kind, ())) for kind in KINDS)
        fits = all(set(base.get(kind, ())) <= set(entry.get(kind, ())) for kind in KINDS)
        # Two classes with the same names would name each other: the first by name is the base.
        if other == key or not fits or size <= saved or (size == own_size and other > key):
            continue
        if base.get("qobject") == entry.get("qobject") and base.get("widget") == entry.get("widget"):
            best, saved = other, size
    if best is None:
        return entry
    base = entries[best]
    short = {k: v for k, v in entry.items() if k not in KINDS}
    short["base"] = best
    for kind in KINDS:
        rest = sorted(set(entry.get(kind, ())) - set(base.get(kind, ())))
        if rest:
            short[kind] = rest
    return short


def main() -> None:
    here = Path(__file__).resolve()
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else here.parents[3] / "shared" / "slicer_api.json"
    trimmed = trim(json.loads(source.read_text()))
    # One class a line: readable in a diff, and small.
    lines = ["{"]
    for key in ("about", "qobject", "modules", "python"):
        lines.append(f"{json.dumps(key)}: {json.dumps(trimmed[key], separators=(',', ':'))},")
    lines.append('"classes": {')
    rows = [f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in trimmed["classes"].items()]
    lines.append(",\n".join(rows))
    lines += ["}", "}"]
    (here.parent / "api.json").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
