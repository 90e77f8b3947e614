"""The demo's report: one HTML page with its pictures inside, which can be read and passed on by itself."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo_data import Wheel
from demo_low_dose import LowDoseReport
from demo_lungs import LungReport
from MedMapAILib import __version__
from MedMapAILib.bundle import BundleInfo
from MedMapAILib.files import write_atomically
from MedMapAILib.image import spacing
from MedMapAILib.results import Segmentation

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Report:
    """What was run, on what, and what came out."""

    model: BundleInfo
    segmentation: Segmentation
    #: The image, (C, I, J, K).
    image: Any
    #: Side → center and size of its box, RAS mm.
    boxes: dict[str, tuple[Point, Point]]
    device: str
    seconds: float
    #: Picture → what is on it. The first one is shown large.
    pictures: dict[Path, str]
    #: Name of a file beside the report → what it is.
    files: dict[str, str]
    wheel: Wheel
    #: The second part, about the chest CT.
    lungs: LungReport | None = None
    #: The third part, about a CT at a low dose.
    low_dose: LowDoseReport | None = None


def write_report(report: Report, path: Path) -> None:
    """Write the page. It needs no other file to be read; its links go to the files that lie beside it."""
    write_atomically(path, _page(report).encode())


def _page(report: Report) -> str:
    first, *near = report.pictures
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MedMapAI demo: hippocampi of the MNI152 template</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Hippocampi of the MNI152 template</h1>
<p class="warning">Research use only; not a medical device, not for diagnosis or treatment.</p>
<p>The model <b>{_text(report.model.title)}</b>, which ships with MedMapAI {__version__}, was run in two boxes of a
T1-weighted MR image that it had not seen, in {report.seconds:.1f} s ({_text(report.device)}). Image, boxes,
segmentation and views are 3D Slicer's own.</p>
<div class="result">
<figure class="large">{_image(first, report.pictures[first])}
<figcaption>{_legend(report.model)}
<br>Axial and 3D above, coronal and sagittal below. As in Slicer, the patient's right is on the left of axial and
coronal views.</figcaption></figure>
<div>
{_volumes(report)}
<p>For orientation: the hippocampus of an adult measures about 3 mL on each side. The template is larger than the
average brain, and the average of many of them; the numbers above are what the model answers for it, no finding about
anybody.</p>
<h2>Model</h2>
{_list(_model_facts(report.model))}
</div>
</div>
<div class="pair">
{"".join(_figure(path, report.pictures[path]) for path in near)}
</div>
<div class="columns">
<section>
<h2>Data</h2>
{_list(_data_facts(report))}
</section>
<section>
<h2>Files beside this page</h2>
<ul>
{"".join(f'<li><a href="{_text(name)}">{_text(name)}</a>: {_text(text)}</li>' for name, text in report.files.items())}
</ul>
</section>
</div>
{"".join(f"<p class='note'>{_text(note)}</p>" for note in report.segmentation.notes)}
{_lungs(report.lungs) if report.lungs is not None else ""}
{_low_dose(report.low_dose) if report.low_dose is not None else ""}
</body>
</html>
"""


def _volumes(report: Report) -> str:
    """The table of volumes: a row for each segment and one for each side."""
    volumes = report.segmentation.volumes_ml()
    rows = []
    for side in report.boxes:
        segments = [s for s in report.segmentation.segments if s.name.startswith(side)]
        for s in segments:
            chip = f'<i style="background:{_css(s.color)}"></i>'
            rows.append(f"<tr><td>{chip}{_text(s.name)}</td><td>{volumes[s.name]:.2f}</td></tr>")
        total = sum(volumes[s.name] for s in segments)
        rows.append(f"<tr class='sum'><td>{_text(side)}, whole</td><td>{total:.2f}</td></tr>")
    return f"<table><thead><tr><th>Segment</th><th>Volume (mL)</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _lungs(lungs: LungReport) -> str:
    """The part about the chest CT."""
    picture, *_ = lungs.pictures
    rows = "".join(
        f"<tr><td>{number} {_text(finding.label)}</td><td>{finding.score:.2f}</td><td>{finding.diameter_mm:.1f}</td>"
        f"<td>{share:.0%}</td></tr>"
        for number, (finding, share) in enumerate(zip(lungs.result.called, lungs.truth, strict=True), start=1)
    )
    model, shape = lungs.model, " × ".join(str(n) for n in lungs.shape)
    facts = {
        "Name": f"{model.name} ({model.task}, {model.modality}), {model.size_bytes / 1e6:.1f} MB",
        "Image": f"lung1 of PyPI's {lungs.wheel.requirement}, {shape} voxels; it was in no training and chose no "
        "threshold",
    }
    return f"""<h1>Nodules in a chest CT</h1>
<p>The model <b>{_text(lungs.model.title)}</b> was run on a whole chest CT that it had not seen, in
{lungs.seconds:.1f} s ({_text(lungs.device)}).</p>
<div class="result">
<figure class="large">{_image(picture, lungs.pictures[picture])}
<figcaption>Each finding is a box (ROI) of Slicer's markups, colored by its score.</figcaption></figure>
<div>
<table><thead><tr><th>Finding</th><th>Score</th><th>Diameter (mm)</th><th>Holds of the known tumor</th></tr></thead>
<tbody>{rows}</tbody></table>
<h2>Model and data</h2>
{_list(facts)}
<h2>Files beside this page</h2>
<ul>
{"".join(f'<li><a href="{_text(name)}">{_text(name)}</a>: {_text(text)}</li>' for name, text in lungs.files.items())}
</ul>
</div>
</div>
{"".join(f"<p class='note'>{_text(note)}</p>" for note in lungs.result.notes)}"""


def _low_dose(low: LowDoseReport) -> str:
    """The part about the CT at a low dose."""
    rows = "".join(
        f"<tr><td>{name}</td><td>{scores.psnr:.1f}</td><td>{scores.ssim:.3f}</td></tr>"
        for name, scores in (("as if at a low dose", low.before), ("after the model", low.after))
    )
    model, shape = low.model, " × ".join(str(n) for n in low.shape)
    window = low.after.window or (0.0, 0.0)
    facts = {
        "Name": f"{model.name} ({model.task}, {model.modality}), {model.size_bytes / 1e6:.1f} MB",
        "Image": f"{shape} voxels of lung1 of PyPI's {low.wheel.requirement}, which was in no training; its dose is "
        "simulated: 360 views, a quarter of 400 000 photons in each detector",
        "PSNR and SSIM": f"against the scan as it was, window {window[0]:.0f} to {window[1]:.0f} HU, data range "
        f"{low.after.data_range:.0f}, mean over slices for SSIM",
    }
    return f"""<h1>A chest CT at a quarter of the dose</h1>
<p>The model <b>{_text(model.title)}</b> was run on a CT that it had not seen, in {low.seconds:.1f} s
({_text(low.device)}).</p>
<div class="pair">
{"".join(_figure(path, text) for path, text in low.pictures.items())}
</div>
<div class="columns">
<section>
<table><thead><tr><th>Image</th><th>PSNR (dB)</th><th>SSIM</th></tr></thead><tbody>{rows}</tbody></table>
{_list(facts)}
</section>
<section>
<h2>Files beside this page</h2>
<ul>
{"".join(f'<li><a href="{_text(name)}">{_text(name)}</a>: {_text(text)}</li>' for name, text in low.files.items())}
</ul>
</section>
</div>"""


def _legend(model: BundleInfo) -> str:
    """A chip and a name for each of the model's segments; both sides have the same colors."""
    chips = (f'<span><i style="background:{_css(s.color)}"></i>{_text(s.name)}</span>' for s in model.segments)
    return f'<span class="legend">{" ".join(chips)}</span>'


#: Which of a model's metrics are shown, and how they are called.
_METRICS = {"dice": "Dice", "hd95_mm": "95 % Hausdorff distance in mm", "volume_error_percent": "volume error in %"}


def _model_facts(model: BundleInfo) -> dict[str, str]:
    facts = {
        "Name": f"{model.name} ({model.task}, {model.modality}), {model.size_bytes / 1e6:.1f} MB",
        "License": str(model.metadata.get("license") or "see its card"),
    }
    measured = {shown: model.metrics[name] for name, shown in _METRICS.items() if name in model.metrics}
    if measured:
        facts["On cases held out, mean over both parts (95 % interval)"] = ", ".join(
            f"{shown} {value['mean']:.3g} ({value['low']:.3g} to {value['high']:.3g})"
            for shown, value in measured.items()
        )
    return facts


def _data_facts(report: Report) -> dict[str, str]:
    shape = " × ".join(str(n) for n in report.image.shape[1:])
    voxel = " × ".join(f"{s:g}" for s in spacing(report.image))
    boxes = "; ".join(
        f"{side.lower()} {' × '.join(f'{v:g}' for v in size)} mm around ({', '.join(f'{v:g}' for v in center)})"
        for side, (center, size) in report.boxes.items()
    )
    return {
        "Image": f"MNI152 (ICBM 2009a, nonlinear, symmetric), T1 without skull, {shape} voxels of {voxel} mm",
        "Boxes (RAS mm)": boxes,
        "From": f"{report.wheel.member.rpartition('/')[2]} in PyPI's {report.wheel.requirement}, SHA-256 of the wheel "
        f"{report.wheel.sha256[:16]}… checked",
        "License of the template": "© 1993–2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological "
        "Institute, McGill University; may be used, copied, modified and distributed for any purpose with this notice, "
        "without warranty",
    }


def _list(facts: dict[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in facts.items()) + "</dl>"


def _figure(path: Path, text: str) -> str:
    return f"<figure>{_image(path, text)}<figcaption>{_text(_sentence(text))}</figcaption></figure>"


def _image(path: Path, text: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{_text(_sentence(text))}" src="data:image/png;base64,{data}">'


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _css(color: tuple[float, ...]) -> str:
    return "rgb(" + ",".join(str(round(255 * part)) for part in color) + ")"


def _text(value: object) -> str:
    return html.escape(str(value))


_STYLE = """
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #1c2733; max-width: 1080px; margin: 24px auto;
  padding: 0 20px }
h1 { font-size: 26px; margin: 0 0 8px } h2 { font-size: 16px; margin: 0 0 6px }
.warning { background: #fff4d6; border-left: 4px solid #e0a800; padding: 6px 12px; margin: 0 0 12px }
.result { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 3fr); gap: 24px; align-items: start }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 24px; margin: 18px 0 }
.columns { display: grid; grid-template-columns: 1fr 1fr; gap: 24px } .columns, dl { font-size: 13px }
figure { margin: 0 } img { width: 100%; display: block; border-radius: 4px; background: #000 }
figcaption { font-size: 13px; color: #48566a; margin-top: 6px }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: 5px 8px; border-bottom: 1px solid #dde3ea }
th:last-child, td:last-child { text-align: right; font-variant-numeric: tabular-nums }
.sum td { font-weight: 600; background: #f4f7fa }
i { display: inline-block; width: 12px; height: 12px; border-radius: 2px; margin-right: 7px; border: 1px solid #0003 }
.legend span { margin-right: 14px }
dl { margin: 0 } dt { font-weight: 600 } dd { margin: 0 0 6px; overflow-wrap: anywhere }
ul { margin: 0; padding-left: 18px } .note { font-size: 13px; color: #48566a; margin: 4px 0 }
@media (max-width: 760px) { .result, .pair, .columns { grid-template-columns: 1fr } }
"""
