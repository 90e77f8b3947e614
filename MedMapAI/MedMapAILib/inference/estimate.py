"""What a run will take, said before it is taken."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """windows: that go through the network. window: voxels. seconds: until the end, or None before a window was
    measured. memory_bytes: at the peak, beyond what is in use already; None where it is not known. notes: what was
    changed to make it fit."""

    windows: int
    window: tuple[int, int, int]
    seconds: float | None
    memory_bytes: int | None
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """One line, such as "28 windows of 96×96×96, about 40 s, 1.2 GB of memory"."""
        size = "×".join(str(n) for n in self.window)
        parts = [f"{self.windows} window{'s' if self.windows != 1 else ''} of {size}"]
        if self.seconds is not None:
            parts.append(f"about {_duration(self.seconds)}")
        if self.memory_bytes is None:
            return ", ".join(parts)
        megabytes = self.memory_bytes / 2**20
        parts.append(f"{megabytes / 1024:.1f} GB of memory" if megabytes > 512 else f"{megabytes:.0f} MB of memory")
        return ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{max(seconds, 0.1):.1f} s"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
