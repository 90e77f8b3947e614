"""What the logics of both modules do alike: their parameter node, and their own worker process."""

from __future__ import annotations

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from .python_program import python_program

#: A process that was killed is gone in some milliseconds; one that holds much memory takes longer.
_END_SECONDS = 5


class ModuleLogic(ScriptedLoadableModuleLogic):
    """A logic with a worker process of its own, which starts when it is first needed.

    A module's logic derives from it and names its parameter node wrapper: ``parameterNodeClass``.
    """

    parameterNodeClass = None

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self._worker = None
        self._transport = None

    def getParameterNode(self):
        """The wrapped parameter node of the scene; made if there is none."""
        node = super().getParameterNode()
        # Held until the next one: VTK lets Python collect the callbacks of a node that no Python object refers to, and
        # calls them all the same. The wrapper's callbacks stay on the node when the panel is gone or reloaded.
        setattr(slicer.modules, f"{self.moduleName}ParameterNode", node)
        return self.parameterNodeClass(node)

    @staticmethod
    def pythonExecutable() -> str:
        """The Python that the worker runs in."""
        return python_program()

    @property
    def worker(self):
        """The client of this module's worker process; the process starts with the first request."""
        if self._worker is None:
            from MedMapAILib.inference.worker_client import WorkerClient

            self._worker = WorkerClient(self._newTransport, self.pythonExecutable())
        return self._worker

    def _newTransport(self):
        from .process_transport import ProcessTransport

        self._transport = ProcessTransport()
        return self._transport

    @property
    def running(self) -> bool:
        """Whether the worker is at something."""
        return self._worker is not None and self._worker.busy

    def shutDown(self) -> None:
        """End the worker, whatever it does: before a reload, or when Slicer closes."""
        if self._worker is not None:
            worker, self._worker = self._worker, None
            worker.shut_down()
            if self._transport is not None:
                self._transport.wait(_END_SECONDS)
