"""Fonts and look for Qt without a display: the offscreen platform knows no fonts where the system has none."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QtMsgType, qInstallMessageHandler
from PySide6.QtGui import QFont, QFontDatabase
from PySide6.QtWidgets import QApplication

FACES = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSansMono.ttf")


def install(application: QApplication) -> str:
    """Use DejaVu Sans, which matplotlib ships, so that screenshots have readable text. Returns the family's name."""
    try:
        import matplotlib
    except ImportError:
        return application.font().family()
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for face in FACES:
        QFontDatabase.addApplicationFont(str(folder / face))
    application.setFont(QFont("DejaVu Sans", 9))
    return QFont("DejaVu Sans").family()


NOISE = ("does not support propagateSizeHints", "does not support raise()", "QFontDatabase: Cannot find font directory")


def quiet() -> None:
    """Keep what the offscreen platform says about itself off the terminal; all else goes to stderr."""
    import sys

    def handle(kind, _context, message):
        if not any(n in message for n in NOISE) and kind != QtMsgType.QtDebugMsg:
            print(message, file=sys.stderr)

    qInstallMessageHandler(handle)
