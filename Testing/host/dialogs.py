"""Dialogs that would wait for a person: recorded, and answered from a queue that the test fills.

A dialog that no answer is queued for raises, so that a test cannot pass over a question that a user would be asked.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from PySide6 import QtWidgets

from .proxy import method_overrides, static_overrides

BUTTONS = QtWidgets.QMessageBox.StandardButton


class UnansweredDialog(AssertionError):
    """A dialog opened and the test had queued no answer for it."""


@dataclass
class Shown:
    """One dialog that was shown: what kind, what it said, what was answered."""

    kind: str
    title: str
    text: str
    answer: object = None
    details: dict = field(default_factory=dict)


_answers: deque = deque()
shown: list[Shown] = []


def queue(*answers) -> None:
    """Queue answers, first in first out: a button's name ("Yes", "Cancel"), True or False, a path, or a function of
    the dialog."""
    _answers.extend(answers)


def pending() -> list:
    return list(_answers)


def reset() -> None:
    _answers.clear()
    shown.clear()


def _next(record: Shown):
    shown.append(record)
    if not _answers:
        raise UnansweredDialog(
            f"no answer queued (host.answer) for the {record.kind} {record.title!r}: {record.text!r}"
        )
    record.answer = _answers.popleft()
    return record.answer


def _button(answer, buttons) -> BUTTONS:
    """The button meant by an answer, among those that the box has."""
    if isinstance(answer, bool):
        wanted = [BUTTONS.Ok, BUTTONS.Yes, BUTTONS.Retry] if answer else [BUTTONS.Cancel, BUTTONS.No, BUTTONS.Close]
        found = [b for b in wanted if b & buttons]
        if not found:
            raise UnansweredDialog(f"the dialog has no button for {answer}")
        return found[0]
    value = BUTTONS[answer] if isinstance(answer, str) else BUTTONS(int(answer))
    if not value & buttons:
        raise UnansweredDialog(f"the dialog has no button {value.name}")
    return value


def _message_box_exec(box) -> int:
    record = Shown(
        "message box",
        box.windowTitle().strip(),
        box.text(),
        details={"informativeText": box.informativeText(), "detailedText": box.detailedText(), "icon": box.icon().name},
    )
    # Only an OK: nothing is asked. It still has to be expected by the test.
    answer = _next(record)
    if callable(answer):
        answer = answer(box)
    custom = [b for b in box.buttons() if isinstance(answer, str) and b.text().replace("&", "") == answer]
    if custom and box.standardButton(custom[0]) == BUTTONS.NoButton:
        custom[0].click()
        return box.result()
    button = _button(answer, box.standardButtons() or BUTTONS.Ok)
    box.setResult(int(button.value))
    box.finished.emit(int(button.value))
    return int(button.value)


def _dialog_exec(dialog) -> int:
    record = Shown(type(dialog).__name__, dialog.windowTitle(), "")
    dialog.show()
    try:
        answer = _next(record)
        if callable(answer):
            from .proxy import wrap

            answer = answer(wrap(dialog))
        code = {True: 1, False: 0, None: dialog.result()}.get(answer, answer)
        dialog.done(int(code))
    finally:
        dialog.hide()
    return dialog.result()


def _static_message_box(kind: str, default: BUTTONS):
    def show(parent, title, text, buttons=None, *_rest):
        offered = BUTTONS(buttons) if isinstance(buttons, int) else default
        return _button(_next(Shown(f"message box ({kind})", title, text)), offered)

    return show


def _file_dialog(kind: str):
    # PythonQt returns the path alone (PySide6: path and filter); "" when cancelled.
    def show(_parent=None, title="", folder="", filters="", *_rest):
        answer = _next(Shown(kind, title, str(folder), details={"filter": filters}))
        if kind == "getOpenFileNames":
            return [str(a) for a in answer or ()]
        return str(answer) if answer else ""

    return show


static_overrides["QMessageBox"] = {
    "question": _static_message_box("question", BUTTONS.Yes | BUTTONS.No),
    "warning": _static_message_box("warning", BUTTONS.Ok),
    "information": _static_message_box("information", BUTTONS.Ok),
    "critical": _static_message_box("critical", BUTTONS.Ok),
}
static_overrides["QFileDialog"] = {
    n: _file_dialog(n) for n in ("getOpenFileName", "getOpenFileNames", "getSaveFileName", "getExistingDirectory")
}
static_overrides["QInputDialog"] = {
    n: (lambda parent, title, label, *rest, n=n: _next(Shown(n, title, label)) or "")
    for n in ("getText", "getItem", "getInt", "getDouble")
}
method_overrides["QMessageBox"] = {"exec": _message_box_exec}
method_overrides["QDialog"] = {"exec": _dialog_exec}
