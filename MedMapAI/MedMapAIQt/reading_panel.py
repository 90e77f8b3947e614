"""The part of the panel in which readers score images blind, and in which studies are made and reported."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .error_dialog import ShowErrors
from .installation import ensure_dependencies
from .reading_scene import split_name, study_from_volumes, volumes_of_scene
from .reading_scores import ScoreButtons
from .reading_tables import fillReportTable
from .reading_views import ALL, ReadingViews

#: Layouts of a study, in the order of the selector.
_LAYOUTS = ("single", "side-by-side")
#: Columns of the table of volumes.
_VOLUME, _CASE, _METHOD = range(3)


class ReadingPanel:
    """Fills a widget of the panel. container: a collapsible section with a layout. uiFile: ReadingPanel.ui. say:
    called with the outcome of something, one sentence.

    While somebody reads, nothing here and nothing that it puts into the scene names a case, a method or a file.
    """

    def __init__(self, container: Any, uiFile: str, say: Callable[[str], None]):
        self._container, self._say = container, say
        widget = slicer.util.loadUI(uiFile)
        container.layout().addWidget(widget)
        self.ui = ui = slicer.util.childWidgetVariables(widget)
        #: The ReadingSession that is shown, or None.
        self.session: Any = None
        self._folder: Path | None = None
        self._report: dict[str, Any] | None = None
        self._tables: tuple = ()
        self._volumes: list[Any] = []
        self._hidden: list[Any] = []
        self.views = ReadingViews()
        self.scores = ScoreButtons(ui.scoresArea, self.onScore)
        ui.studyEdit.textChanged.connect(self.onStudyChanged)
        ui.keyEdit.textChanged.connect(self.onStudyChanged)
        ui.readerEdit.textChanged.connect(self.onReaderChanged)
        ui.readerEdit.returnPressed.connect(self.onBegin)
        ui.chooseStudyButton.clicked.connect(self.onChooseStudy)
        ui.chooseKeyButton.clicked.connect(self.onChooseKey)
        ui.beginButton.clicked.connect(self.onBegin)
        ui.makeBox.toggled.connect(self.onMakeBox)
        ui.windowBox.toggled.connect(self.onWindowBox)
        ui.makeSceneButton.clicked.connect(self.onMakeOfScene)
        ui.makeTableButton.clicked.connect(self.onMakeOfTable)
        ui.makeFolderButton.clicked.connect(self.onMakeOfFolder)
        ui.reportButton.clicked.connect(self.onReport)
        ui.saveReportButton.clicked.connect(self.onSaveReport)
        ui.reportSelector.currentIndexChanged.connect(self.onReportTable)
        ui.orientationSelector.currentIndexChanged.connect(self.onOrientation)
        ui.resetWindowButton.clicked.connect(self.onResetWindow)
        ui.previousButton.clicked.connect(lambda checked=False: self._turn(-1))
        ui.nextButton.clicked.connect(lambda checked=False: self._turn(1))
        ui.nextOpenButton.clicked.connect(self.onNextOpen)
        ui.pauseButton.clicked.connect(self.onPause)
        ui.finishButton.clicked.connect(self.onFinish)
        header = ui.volumesTable.horizontalHeader()
        header.setSectionResizeMode(3)  # QHeaderView.ResizeToContents
        header.setSectionResizeMode(_VOLUME, 1)  # QHeaderView.Stretch
        ui.reportTable.horizontalHeader().setSectionResizeMode(3)
        for part in (ui.aboutLabel, ui.reportSelector, ui.reportTable):
            part.visible = False

    # -- the study --------------------------------------------------------------------------------------------------

    @property
    def _key(self) -> str | None:
        return self.ui.keyEdit.text.strip() or None

    def onChooseStudy(self, checked: bool = False) -> None:
        path = qt.QFileDialog.getExistingDirectory(self._container, _("Choose the folder of a study"), "")
        if path:
            self.ui.studyEdit.text = path

    def onChooseKey(self, checked: bool = False) -> None:
        path = qt.QFileDialog.getOpenFileName(self._container, _("Choose the key of a study"), "", "JSON (*.json)")
        path = path[0] if isinstance(path, (tuple, list)) else path
        if path:
            self.ui.keyEdit.text = path

    def onStudyChanged(self, text: str = "") -> None:
        """Say what is in the folder, and who has read."""
        from MedMapAILib.errors import InputError
        from MedMapAILib.reading.session import readers_of
        from MedMapAILib.reading.study import load_study

        ui, folder = self.ui, self.ui.studyEdit.text.strip()
        self._showReport(None)
        about = ""
        if folder:
            try:
                study, readers = load_study(folder), readers_of(folder)
            except InputError as error:
                about = str(error)
            else:
                way = _("one at a time") if study.layout == _LAYOUTS[0] else _("side by side")
                about = _("{images} images, {way}.").format(images=study.images, way=way)
                for code, finished in readers.items():
                    state = _("finished") if finished else _("goes on")
                    about += " " + _("{reader} {state}.").format(reader=code, state=state)
        ui.aboutLabel.text = about
        ui.aboutLabel.visible = bool(about)
        ui.reportButton.enabled = ui.saveReportButton.enabled = bool(folder)
        self.onReaderChanged()

    def onReaderChanged(self, text: str = "") -> None:
        self.ui.beginButton.enabled = bool(self.ui.studyEdit.text.strip() and self.ui.readerEdit.text.strip())

    # -- making one -------------------------------------------------------------------------------------------------

    def onMakeBox(self, checked: bool = False) -> None:
        if not self.ui.makeBox.collapsed:
            self.listVolumes()

    def onWindowBox(self, checked: bool = False) -> None:
        self.ui.windowLow.enabled = self.ui.windowHigh.enabled = self.ui.windowBox.checked

    def listVolumes(self) -> None:
        """List the volumes of the scene; what was said of a volume stays."""
        table = self.ui.volumesTable
        said = {}
        for row, node in enumerate(self._volumes):
            texts = [table.item(row, column).text() for column in (_CASE, _METHOD)]
            said[node.GetID()] = (table.item(row, _VOLUME).checkState(), *texts)
        self._volumes = volumes_of_scene()
        table.setRowCount(len(self._volumes))
        for row, node in enumerate(self._volumes):
            state, case, method = said.get(node.GetID(), (2, *split_name(node.GetName())))
            items = [qt.QTableWidgetItem(text) for text in (node.GetName(), case, method)]
            items[_VOLUME].setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsUserCheckable)
            items[_VOLUME].setCheckState(state)
            for column, item in enumerate(items):
                table.setItem(row, column, item)
        self.ui.makeSceneButton.enabled = bool(self._volumes)

    def _options(self) -> dict[str, Any]:
        ui = self.ui
        window = (ui.windowLow.value, ui.windowHigh.value) if ui.windowBox.checked else None
        return {"layout": _LAYOUTS[ui.layoutSelector.currentIndex], "window": window}

    def onMakeOfScene(self, checked: bool = False) -> None:
        def make(folder: Path) -> Any:
            from MedMapAILib.errors import InputError

            table, nodes = self.ui.volumesTable, {}
            for row, node in enumerate(self._volumes):
                if table.item(row, _VOLUME).checkState() != 2:  # Qt.Checked
                    continue
                if slicer.mrmlScene.GetNodeByID(node.GetID()) is not node:
                    raise InputError(_("A volume of the list is no longer in the scene; the list is made anew."))
                case, method = (table.item(row, column).text().strip() for column in (_CASE, _METHOD))
                if not (case and method):
                    raise InputError(_("A checked volume has no case or no method; double-click there to name it."))
                if method in nodes.setdefault(case, {}):
                    text = _("Two volumes are called method {method} of case {case}; rename one in the list.")
                    raise InputError(text.format(method=method, case=case))
                nodes[case][method] = node
            return study_from_volumes(folder, nodes, **self._options())

        self._make(make)
        self.listVolumes()

    def onMakeOfTable(self, checked: bool = False) -> None:
        path = qt.QFileDialog.getOpenFileName(
            self._container, _("Choose a table with the columns case, method and file"), "", "CSV (*.csv)"
        )
        self._makeOf(path[0] if isinstance(path, (tuple, list)) else path)

    def onMakeOfFolder(self, checked: bool = False) -> None:
        title = _("Choose a folder that has a folder for each method")
        self._makeOf(qt.QFileDialog.getExistingDirectory(self._container, title, ""))

    def _makeOf(self, path: str) -> None:
        def make(folder: Path) -> Any:
            from MedMapAILib.reading.images import make_study
            from MedMapAILib.reading.sources import images_of

            return make_study(folder, images_of(path), **self._options())

        if path and (Path(path).is_dir() or _packages("datasets.table", _("The study was not made."))):
            self._make(make)

    def _make(self, make: Callable[[Path], Any]) -> None:
        place = qt.QFileDialog.getExistingDirectory(self._container, _("Choose where to make the study"), "")
        if not place:
            return
        with ShowErrors(_("The study was not made.")):
            folder = _free(Path(place))
            with _busy():
                study = make(folder)
            self.ui.studyEdit.text = str(folder)
            self._say(_("The study has {images} images.").format(images=study.images))

    # -- reading ----------------------------------------------------------------------------------------------------

    def onBegin(self, checked: bool = False) -> None:
        if self.session is not None or not self.ui.beginButton.enabled:
            return
        with ShowErrors(_("The reading did not begin.")):
            from MedMapAILib.errors import InputError
            from MedMapAILib.reading import ReadingSession, check_reader_code
            from MedMapAILib.reading.images import check_images_there

            folder = Path(self.ui.studyEdit.text.strip())
            reader = check_reader_code(self.ui.readerEdit.text)
            check_images_there(folder, self._key)
            session = ReadingSession(folder, reader, key=self._key)
            if session.finished:
                text = _("{reader} has finished this study; its scores stay as they are.")
                raise InputError(text.format(reader=reader))
            if not self._sceneTellsNothing():
                return
            self._start(folder, session)

    def _sceneTellsNothing(self) -> bool:
        """Other volumes of the scene would be seen with their names: they have to go. False: they are to stay."""
        if not [node for node in slicer.util.getNodesByClass("vtkMRMLVolumeNode") if not node.GetHideFromEditors()]:
            return True
        text = _(
            "Volumes are in the scene, and their names would be seen during the reading.\n\nClose the scene and begin? "
            "What is not saved is lost."
        )
        if not slicer.util.confirmYesNoDisplay(text, _("Blinded reading")):
            self._say(_("The reading did not begin: close the scene first."))
            return False
        slicer.mrmlScene.Clear(0)
        return True

    def _start(self, folder: Path, session: Any) -> None:
        ui = self.ui
        self._folder, self.session = folder, session
        self._showReport(None)
        self._volumes = []
        ui.volumesTable.setRowCount(0)
        self.scores.build(session.study.criteria, session.study.scale, len(session.codes))
        # Three of one image, or one of each.
        item = ui.orientationSelector.findText(ALL)
        if len(session.codes) > 1 and item >= 0:
            ui.orientationSelector.removeItem(item)
        elif len(session.codes) == 1 and item < 0:
            ui.orientationSelector.addItem(ALL)
        self.views.begin()
        self._hideOthers()
        ui.studyPage.visible, ui.readingPage.visible = False, True
        self._say("")
        try:
            left = all(session.is_complete(code) for code in session.codes)
            following = session.next_open()
            self._go(following if left and following is not None else session.position)
        except BaseException:
            self.stop()
            raise

    def _hideOthers(self) -> None:
        """Hide the rest of the panel: it is in the way, and tells names."""
        around = [one for one in self._container.parentWidget().children() if hasattr(one, "isHidden")]
        # Sections alone: what is said in the status line has to be seen.
        rest = [one for one in around if one != self._container and "Label" not in one.className()]
        self._hidden = [one for one in rest if not one.isHidden()]
        for widget in self._hidden:
            widget.visible = False

    def _go(self, position: int) -> None:
        """Show a screen. The views stay as they are where its images cannot be read."""
        from MedMapAILib.reading.images import shown_image

        codes = self.session.screens[position]
        with _busy():
            volumes = [shown_image(self._folder, self.session, code) for code in codes]
            self.session.go_to(position)
            self.views.show(volumes, self.session.window(codes[0]), self.ui.orientationSelector.currentText)
        self._showState()

    def _showState(self) -> None:
        ui, session = self.ui, self.session
        for number, code in enumerate(session.codes):
            self.scores.show(number, session.scores(code))
        done, count = session.progress
        text = _("Reader {reader}, screen {position} of {screens}.")
        ui.positionLabel.text = text.format(
            reader=session.reader, position=session.position + 1, screens=len(session.screens)
        )
        ui.readingProgress.maximum, ui.readingProgress.value = count, done
        ui.previousButton.enabled = session.position > 0
        ui.nextButton.enabled = session.position + 1 < len(session.screens)
        ui.nextOpenButton.enabled = session.next_open() not in (None, session.position)
        ui.finishButton.enabled = done == count

    def onScore(self, image: int, criterion: str, value: int) -> None:
        if self.session is None:
            return
        with ShowErrors(_("The score was not kept.")):
            self.session.score(self.session.codes[image], criterion, value)
        self._showState()

    def _turn(self, by: int) -> None:
        with ShowErrors(_("The next images are not shown.")):
            self._go(self.session.position + by)

    def onNextOpen(self, checked: bool = False) -> None:
        with ShowErrors(_("The next images are not shown.")):
            position = self.session.next_open()
            if position is not None:
                self._go(position)

    def onOrientation(self, index: int = -1) -> None:
        if self.session is not None and self.views.nodes:
            self.views.arrange(self.ui.orientationSelector.currentText)

    def onResetWindow(self, checked: bool = False) -> None:
        self.views.setWindow(self.session.window(self.session.codes[0]))

    def onPause(self, checked: bool = False) -> None:
        reader = self.session.reader
        self.stop()
        self._say(_("All scores are kept; the code {reader} goes on where it stopped.").format(reader=reader))

    def onFinish(self, checked: bool = False) -> None:
        text = _("Close your reading? Scores cannot be changed afterwards.")
        if not slicer.util.confirmYesNoDisplay(text, _("Blinded reading")):
            return
        with ShowErrors(_("The reading was not closed.")):
            self.session.finish()
            self.stop()
            self._say(_("The reading is finished. Thank you."))

    def stop(self) -> None:
        """End the showing, if there is one: the scene is as it was. The session is on disk."""
        if self.session is None:
            return
        self.session = None
        self.views.end()
        self.scores.clear()
        self.ui.readingPage.visible, self.ui.studyPage.visible = False, True
        for widget in self._hidden:
            widget.visible = True
        self._hidden = []
        self.onStudyChanged()
        if not self.ui.makeBox.collapsed:
            self.listVolumes()

    def forget(self) -> None:
        """The scene is closed, or the panel ends."""
        self.stop()
        self._volumes = []
        self.ui.volumesTable.setRowCount(0)

    # -- the report -------------------------------------------------------------------------------------------------

    def onReport(self, checked: bool = False) -> None:
        with ShowErrors(_("There is no report.")):
            report = self._reported()
            if report is None:
                return
            from MedMapAILib.mrml.reading import nodes_from_reading
            from MedMapAILib.reading.tables import report_tables

            self._showReport(report, report_tables(report))
            nodes_from_reading(self._tables, name=_("Reading"))
            self._say(_("The report is here, and in the scene as {count} tables.").format(count=len(self._tables)))

    def onSaveReport(self, checked: bool = False) -> None:
        path = qt.QFileDialog.getSaveFileName(
            self._container, _("Save the report"), "reading.json", "JSON (*.json);;CSV (*.csv)"
        )
        path = path[0] if isinstance(path, (tuple, list)) else path
        if not path:
            return
        with ShowErrors(_("The report was not saved.")):
            report = self._reported()
            if report is None:
                return
            from MedMapAILib.reading.report import write_reading

            write_reading(report, path)
            self._say(_("The report is in {path}.").format(path=path))

    def _reported(self) -> dict[str, Any] | None:
        """The report, after a question where a reader goes on; None where the answer was no."""
        from MedMapAILib.reading.session import readers_of

        folder = self.ui.studyEdit.text.strip()
        waiting = [reader for reader, finished in readers_of(folder).items() if not finished]
        if waiting and self._report is None:
            text = _(
                "{readers} did not finish. The report says which method is which; who sees it cannot read blind any "
                "more.\n\nShow it all the same?"
            )
            if not slicer.util.confirmYesNoDisplay(text.format(readers=", ".join(waiting)), _("Blinded reading")):
                return None
        if not _packages("reading.report", _("There is no report.")):
            return None
        from MedMapAILib.reading.report import reading_report

        with _busy():
            return reading_report(folder, key=self._key)

    def _showReport(self, report: dict[str, Any] | None, tables: tuple = ()) -> None:
        self._report, self._tables = report, tables
        self.ui.reportSelector.visible = self.ui.reportTable.visible = report is not None
        self.onReportTable()

    def onReportTable(self, index: int = -1) -> None:
        chosen = self.ui.reportSelector.currentIndex
        fillReportTable(self.ui.reportTable, self._tables[chosen] if self._tables else None)


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    """A wait cursor. Not slicer.util.WaitCursor, which lets clicks through first."""
    slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
    try:
        yield
    finally:
        slicer.app.restoreOverrideCursor()


def _packages(module: str, title: str) -> bool:
    """Whether a part of the library can be used that needs more than Slicer brings: missing packages are offered. What
    goes wrong is shown under the title."""
    try:
        importlib.import_module(f"MedMapAILib.{module}")
    except ImportError:
        with ShowErrors(title):
            return ensure_dependencies()
        return False
    return True


def _free(place: Path) -> Path:
    """A folder under ``place`` that is not there yet."""
    number = 1
    while (place / f"reading_{number:03d}").exists():
        number += 1
    return place / f"reading_{number:03d}"
