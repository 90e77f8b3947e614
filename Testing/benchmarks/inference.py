"""``make bench``: MedMapAI beside MONAI and nnU-Net, on the same network, image, cores and number of threads.

Each contender lives in a process of its own. In each round every one of them does the same scans, one after the other,
and the order is turned round by one from round to round, so that none is always the first. The first run of each is not
counted. Where a case has several scans, each round takes the next share of them; every ratio is between two runs on the
same scans in the same round. All is written to bench/results.json after each run; --resume goes on where it was killed.

    make bench ARGS="--case small --contender nnunet,ours-fp32 --rounds 5"
    python Testing/benchmarks/inference.py --quick
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import psutil

_TESTING = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_TESTING), str(_TESTING.parent / "MedMapAI")]

from benchmarks.cases import CASES, ROOT, Case, find_case  # noqa: E402
from benchmarks.contenders import DEFAULTS, NAMES  # noqa: E402
from benchmarks.contenders.launch import ContenderProcess, Lost  # noqa: E402
from benchmarks.convolution_peak import measure_peaks  # noqa: E402
from benchmarks.measure import equal_share, joint_counts, mean_dice  # noqa: E402
from benchmarks.results import Results  # noqa: E402
from benchmarks.summary import pair, summarize, table  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, write the JSON. Returns the exit code: 1 where a contender was left out."""
    options = _options(arguments)
    _use_cores(options.cores)
    settings = {
        "cores": options.cores,
        "threads": options.threads,
        "rounds": options.rounds,
        "quick": options.quick,
    }
    # What ends a run from outside is no reason to leave contenders computing.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results = Results(options.output / "results.json", settings, keep=options.resume)
    if not options.resume:
        for folder in ("cache", "labels"):
            shutil.rmtree(options.output / folder, ignore_errors=True)
    try:
        for name in options.case:
            CaseRun(find_case(name), options, results).run()
        if options.peak:
            _say("convolutions: the peak of this machine")
            measure_peaks(options.case, options.output, options.threads, results)
    except KeyboardInterrupt:
        _say("interrupted")
    print(table(results.data))
    _say(f"{results.path} has it all")
    return int(any(case["left_out"] for case in results.data["cases"].values()))


class CaseRun:
    """All rounds of one case."""

    def __init__(self, case: Case, options: argparse.Namespace, results: Results):
        self._case, self._options, self._results = case, options, results
        self._work = options.output
        self._part = results.case(case.name, case.title, case.caution)
        self._processes: dict[str, ContenderProcess] = {}

    def run(self) -> None:
        """Prepare, start the contenders, and go round."""
        self._case.prepare(self._work)
        wanted = self._options.contender or DEFAULTS[self._case.name]
        rounds = list(enumerate(self._shares(), start=1))
        try:
            for name in wanted:
                if any(self._missing(name, number, share) for number, share in rounds):
                    self._start(name)
            for number, share in rounds:
                turn = (number - 1) % max(1, len(wanted))
                for name in (*wanted[turn:], *wanted[:turn]):
                    self._round(name, number, share)
                self._compare()
        finally:
            for process in self._processes.values():
                process.close()

    def _shares(self) -> list[tuple[str, ...]]:
        """The scans of each round. A single scan is done again in each."""
        scans = self._case.scans
        if self._options.quick:
            return [scans[: self._case.quick]]
        rounds = self._options.rounds
        if len(scans) < 2 * rounds:
            return [scans] * rounds
        return [scans[number::rounds] for number in range(rounds)]

    def _missing(self, name: str, number: int, share: tuple[str, ...]) -> list[str]:
        done = {row["scan"] for row in self._part["rows"] if row["contender"] == name and row["round"] == number}
        return [scan for scan in share if scan not in done]

    def _start(self, name: str) -> None:
        _say(f"{self._case.name}: starting {name}")
        log = self._work / "logs" / f"{self._case.name}-{name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            process = ContenderProcess(name, self._case.name, self._work, self._options.threads, log)
            self._processes[name] = process
            warm_up = process.ask("warm_up", self._case.warm_up)
        except Lost as error:
            self._leave_out(name, str(error))
            return
        self._results.data["versions"] |= process.versions
        self._part["left_out"].pop(name, None)
        self._part["starts"][name] = {
            "start_seconds": process.start_seconds,
            "warm_up": warm_up,
            "whole": self._case.warm_up in self._case.scans,
        }
        self._results.save()

    def _round(self, name: str, number: int, share: tuple[str, ...]) -> None:
        for scan in self._missing(name, number, share):
            if name not in self._processes:
                return
            output = self._labels(name, scan)
            output.parent.mkdir(parents=True, exist_ok=True)
            try:
                row = self._processes[name].ask("run", scan, output)
            except Lost as error:
                self._leave_out(name, str(error))
                return
            self._part["rows"].append({"contender": name, "round": number, "scan": scan} | row)
            self._results.save()
            peak = f", {row['peak_bytes'] / 2**30:.2f} GB" if row["peak_bytes"] else ""
            _say(f"{self._case.name}: round {number}, {scan}, {name}: {row['wall']:.2f} s{peak}")

    def _leave_out(self, name: str, reason: str) -> None:
        _say(f"{self._case.name}: {name} is left out: {reason}")
        self._processes.pop(name, None)
        self._part["left_out"][name] = reason
        self._results.save()

    def _labels(self, name: str, scan: str) -> Path:
        return self._work / "labels" / self._case.name / name / f"{scan}.npy"

    def _compare(self) -> None:
        """Dice and agreement of the label maps that are there and were not compared yet."""
        for scan in self._case.scans:
            maps = {name: np.load(path) for name in NAMES if (path := self._labels(name, scan)).exists()}
            truth = self._case.load(self._work, scan).truth if maps else None
            for name, labels in maps.items():
                scored = self._part["dice"].setdefault(name, {})
                if truth is not None and scan not in scored:
                    scored[scan] = mean_dice(joint_counts(labels, truth))
            for first, second in combinations(maps, 2):
                scored = self._part["agreement"].setdefault(pair(first, second), {})
                if scan not in scored:
                    counts = joint_counts(maps[first], maps[second])
                    scored[scan] = {"equal": equal_share(counts), "dice": mean_dice(counts)}
        self._part["summary"] = summarize(self._part)
        self._results.save()


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="inference.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", type=_names(CASES), default=["small", "large"], help=f"of {', '.join(CASES)}")
    parser.add_argument("--contender", type=_names(NAMES), default=None, help=f"of {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=5, help="times that everything is measured; 5 if not given")
    parser.add_argument("--quick", action="store_true", help="one round, on one or two scans: to see that it works")
    parser.add_argument("--cores", type=_cores, default=[], help="such as 0,1; all of them if not given (Linux)")
    parser.add_argument("--threads", type=int, default=0, help="of each contender; as many as cores if not given")
    parser.add_argument("--peak", action=argparse.BooleanOptionalAction, default=True, help="measure convolutions too")
    parser.add_argument("--resume", action="store_true", help="go on with what is in the results already")
    parser.add_argument("--output", type=Path, default=ROOT / "bench", help="folder of results and working files")
    options = parser.parse_args(arguments)
    options.output = options.output.resolve()
    options.threads = options.threads or len(options.cores) or psutil.cpu_count(logical=False) or 1
    if options.quick:
        options.rounds = 1
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def _names(known: Any) -> Any:
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        wrong = [name for name in names if name not in known]
        if wrong or not names:
            raise argparse.ArgumentTypeError(f"{wrong[0] if wrong else text!r}: choose from {', '.join(known)}")
        return names

    return parse


def _cores(text: str) -> list[int]:
    return sorted({int(core) for core in text.split(",")})


def _use_cores(cores: list[int]) -> None:
    """Keep this process, and so all contenders, to some cores. Where the system cannot (macOS) only threads count."""
    if not cores:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("--cores works on Linux only; leave it out, and give --threads.")
    try:
        os.sched_setaffinity(0, cores)
    except OSError:
        raise SystemExit(f"--cores {','.join(map(str, cores))}: there are no such cores here.") from None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
