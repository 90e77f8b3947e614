"""What each finding of a scan is beside the reference, by LUNA16's rule of a hit; the counts are froc.py's."""

from __future__ import annotations

import numpy as np

from ..results.detection import Detections, Finding, FindingReference

#: The best on a finding of its class, and further ones on it; where readers disagreed; and nothing at all.
TRUE, DOUBLE, IGNORED, FALSE = "true positive", "double hit", "ignored", "false positive"


def match_findings(result: Detections, reference: FindingReference) -> list[str]:
    """One of TRUE, DOUBLE, IGNORED and FALSE for each of ``result.findings``, whatever it scores.

    A finding hits another of its class when its center lies nearer to the other's than that one's radius; of several
    that hit the same the one that scores highest is true.
    """
    kinds = []
    hit: set[int] = set()
    # By falling score: the first on a finding is its best.
    for finding in result.findings:
        on = [number for number, other in enumerate(reference.findings) if _within(finding, other)]
        if set(on) - hit:
            kinds.append(TRUE)
            hit |= set(on)
        elif on:
            kinds.append(DOUBLE)
        elif any(_within(finding, other) for other in reference.ignored):
            kinds.append(IGNORED)
        else:
            kinds.append(FALSE)
    return kinds


def _within(finding: Finding, other: Finding) -> bool:
    away = np.linalg.norm(np.subtract(finding.center, other.center))
    return finding.label == other.label and bool(away < other.diameter_mm / 2)
