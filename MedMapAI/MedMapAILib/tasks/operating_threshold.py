"""The score from which on a detector calls what it found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..metrics.matching import FALSE, TRUE, match_findings
from ..results import Detections, FindingReference

RULES = ("f1", "false-positives")


def choose_threshold(
    results: Sequence[Detections],
    references: Sequence[FindingReference],
    *,
    rule: str,
    false_positives_per_scan: float,
) -> float:
    """The operating point from scans that were not trained on, 0 to 1, midway between neighboring scores.

    rule: "f1", the highest F1 over all findings, or "false-positives", the lowest threshold with no more false
    positives a scan than that. Without any scan, or any candidate, 0.5; for "f1" also where none of them is a finding,
    since no threshold is better than another then. Raises InputError for another rule.
    """
    if rule not in RULES:
        raise InputError(f"evaluation.operating_point is {rule!r}; for a detection choose one of {', '.join(RULES)}.")
    scores, hits, findings = [], [], 0
    for result, reference in zip(results, references, strict=True):
        matched = match_findings(result, reference)
        findings += len(reference.findings)
        for finding, hit in zip(result.findings, matched, strict=True):
            # A second box in a finding, or one in a place to ignore, is neither right nor wrong.
            if hit in (TRUE, FALSE):
                scores.append(finding.score)
                hits.append(hit == TRUE)
    if not scores or (rule == "f1" and not any(hits)):
        return 0.5
    order = np.argsort(-np.array(scores), kind="stable")
    scores, hits = np.array(scores)[order], np.array(hits)[order]
    true, false = np.cumsum(hits), np.cumsum(~hits)
    # Only where the next score is lower can a threshold lie.
    possible = np.append(scores[:-1] > scores[1:], True)
    if rule == "f1":
        f1 = 2 * true / (true + false + max(findings, 1))
        best = int(np.argmax(np.where(possible, f1, -1)))
    else:
        allowed = possible & (false <= false_positives_per_scan * len(results))
        if not allowed.any():
            return float(min(1.0, scores[0] + (1 - scores[0]) / 2))
        best = int(np.flatnonzero(allowed)[-1])
    below = scores[best + 1] if best + 1 < len(scores) else 0.0
    return float((scores[best] + below) / 2)
