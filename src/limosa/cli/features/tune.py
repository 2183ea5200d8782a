"""``limosa features tune``: how coarse the feature of a cut may be."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import click

from limosa.cli import options, progress, report
from limosa.cli.features import arguments
from limosa.errors import MissingExtraError
from limosa.exchange.originals import refuse_inputs

if TYPE_CHECKING:
    from limosa.torch import FeatureTuning


@click.command("tune", short_help="Find how coarse a feature may be.")
@arguments.model_option
@click.option("--at", "cut", required=True, multiple=True, metavar="CUT", help="Where it is cut.")
@click.option(
    "--data",
    required=True,
    metavar="D",
    help="package.module:name of batches, or of what returns them: inputs, or (inputs, labels).",
)
@click.option("--max-drop", required=True, type=float, help="By how much the metric may fall.")
@click.option(
    "--metric",
    metavar="F",
    help="package.module:name of a function of outputs and labels; larger is better. Unless given: "
    "per cent of right labels, or without labels minus the divergence (nats) from the uncut model.",
)
@options.output_option("Where to write the profile, which both sides need.")
@click.option("--csv", "table", type=click.Path(dir_okay=False), help="Write the curve as CSV.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw the curve as PNG.")
@options.json_option()
def command(
    model: str,
    cut: tuple[str, ...],
    data: str,
    max_drop: float,
    metric: str | None,
    output: str,
    table: str | None,
    plot: str | None,
    as_json: bool,
) -> None:
    """Find the fewest bits an element at which a metric drops by at most --max-drop.

    The profile has the order, the scales and the step of the channels; `features serve` and
    `features send` take it as --profile.

    \b
    limosa features tune --model shop:network --at layer3 --data shop:batches \\
        --max-drop 0.5 -o layer3.profile --plot layer3.png
    """
    if output == "-":
        raise click.UsageError("a profile goes to a file")
    for written in (output, table, plot):
        refuse_inputs(written, model)
    from limosa.codec.feature.profile_file import save_profile
    from limosa.exchange.feature_service.naming import find, find_batches, find_model
    from limosa.torch import tune_feature

    made = find_batches(data)
    chosen = None if metric is None else find(metric, f"metric {metric!r}")
    network = find_model(model).eval()
    with progress.count_bar("tune") as advance:
        tuning = tune_feature(
            network, list(cut), made, max_drop=max_drop, metric=chosen, example=_example(made),
            progress=advance,
        )  # fmt: skip
    said = {"cut": ",".join(cut), "bits": f"{tuning.point.bits:.4g}", "max_drop": f"{max_drop:g}"}
    save_profile(tuning.profile, output, said)
    if table is not None:
        write_csv(table, tuning)
    if plot is not None:
        draw(plot, tuning, max_drop)
    _report(output, tuning, as_json)


def _example(batches: list[Any]) -> Any:
    first = batches[0] if batches else None
    inputs = first[0] if isinstance(first, (tuple, list)) else first
    return None if inputs is None else inputs[:2]


def _report(output: str, tuning: FeatureTuning, as_json: bool) -> None:
    point = tuning.point
    if as_json:
        report.print_json(
            {
                "output": output,
                "digest": tuning.profile.digest,
                "bits": point.bits,
                "drop": point.drop,
                "metric": tuning.metric,
                "curve": [vars(one) for one in tuning.curve],
            }
        )
        return
    click.echo(f"{output}: {point.bits:.3g} bits an element, the metric drops by {point.drop:.3g}")


def write_csv(path: str, tuning: FeatureTuning) -> None:
    """The curve, fine to coarse."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["step", "bits_per_element", "drop"])
        rows.writerows((f"{p.step:.6g}", f"{p.bits:.6g}", f"{p.drop:.6g}") for p in tuning.curve)


def draw(path: str, tuning: FeatureTuning, max_drop: float) -> None:
    """The drop against the bits.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError.for_extra("plot", "drawing") from None
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.plot([p.bits for p in tuning.curve], [p.drop for p in tuning.curve], "o-", color="C0")
    axis.plot(tuning.point.bits, tuning.point.drop, "D", color="C3", label="chosen")
    axis.axhline(max_drop, color="grey", linestyle="--", label="allowed")
    axis.set_xlabel("bits an element")
    axis.set_ylabel("drop of the metric")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend()
    figure.savefig(path, dpi=120)
