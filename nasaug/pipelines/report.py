"""`nasaug report`: what a search did and found, as one HTML page that needs nothing else."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import TrialState

from nasaug.config import dump_config
from nasaug.console import emit_json, say, show_log_messages
from nasaug.pictures import architecture_figure, inline_svg, space_figure
from nasaug.pipelines import page
from nasaug.pipelines.report_plots import (
    QUANTITIES,
    effort,
    history,
    importances,
    limits_in_words,
    over_costs,
)
from nasaug.pipelines.searched import (
    COSTS,
    Judged,
    Searched,
    find_run,
    read_search,
)
from nasaug.pipelines.stored import hide_password
from nasaug.search import format_count, format_macs
from nasaug.supernet import RowCost, Skip, embed, macs, params, row_costs
from nasaug.training import write_atomically

TOP = 10


def write_report(
    run: str | None, out: str | None, storage: str | None, study: str | None, as_json: bool
) -> None:
    """Write the report of a search. Raises: ValueError, OSError."""
    show_log_messages()
    searched, _ = read_search(find_run(run), storage, study)
    path = Path(out) if out is not None else searched.folder / "report.html"
    write_atomically(path, report_page(searched))
    if as_json:
        winner = searched.winner
        emit_json(
            {
                "report": str(path),
                "run_dir": str(searched.folder),
                "study": searched.study.study_name,
                "finished": searched.finished,
                "trials": searched.count(TrialState.COMPLETE),
                "best": None if winner is None else {**winner.values, **winner.costs},
            }
        )
    else:
        say(f"report: {path}")


def report_page(searched: Searched) -> str:
    """The page's HTML."""
    sections = [("made", "What was searched", _made(searched))]
    winner = searched.winner
    if winner is not None:
        sections += [
            ("winner", _winner_title(searched), _winner(searched, winner)),
            ("best", _best_title(searched), _best(searched)),
            ("costs", "Judgements over costs", over_costs(searched)),
            ("history", "History", history(searched)),
            ("importances", "Which decisions matter", importances(searched)),
        ]
    sections += [
        ("effort", "What it costs", effort(searched, winner)),
        ("reading", "How to read this", _reading(searched)),
    ]
    lead = f"{searched.progress}, in {searched.folder}"
    return page.page(f"{searched.title}, {limits_in_words(searched)}", lead, sections)


def _made(searched: Searched) -> str:
    config, space, target = searched.config, searched.space, searched.target
    path = searched.folder / "config.yaml"
    named = f"{space.name}: " if space.is_table else ""
    pairs = [
        ("data", config.data.name),
        ("resolution", _resolution(searched)),
        (
            "space",
            f"{named}{format_count(space.count())} members, "
            f"{format_macs(space.source.cheapest)} to "
            f"{format_macs(space.source.dearest)} MACs, {len(space.decisions)} decisions",
        ),
        ("limits", limits_in_words(searched)),
        ("objectives", ", ".join(searched.objectives)),
        ("sampler", f"{config.sampler}, {config.trials} trials, seed {config.seed}"),
        ("supernet", _recipe(searched)),
        ("study", searched.study.study_name),
    ]
    if searched.over is not None:
        about = f"{target.name}: {macs(target):,} MACs, {params(target):,} parameters"
        pairs.insert(0, ("target", about))
    command = f"nasaug search --config {shlex.quote(str(path))}"
    return (
        page.facts(pairs)
        + page.paragraph("The command that makes it again:")
        + page.code(command)
        + page.folded("The configuration", page.code(_configuration(searched)))
    )


def _resolution(searched: Searched) -> str:
    size = searched.target.resolution
    shown = (searched.best or {}).get("train_resolution", searched.config.train.resolution)
    if shown in (None, size):
        return f"{size} x {size}"
    return f"{size} x {size} for costs; trained and judged at {shown} x {shown} (a proxy)"


def _recipe(searched: Searched) -> str:
    recipe = searched.config.train
    return (
        f"{recipe.epochs:g} epochs after {recipe.warmup_epochs:g} of warm-up, "
        f"batch {recipe.batch_size}, learning rate {recipe.lr:g}"
    )


def _configuration(searched: Searched) -> str:
    values: dict[str, Any] = yaml.safe_load(dump_config(searched.config))
    if values.get("storage"):
        values["storage"] = hide_password(values["storage"])
    return yaml.safe_dump(values, sort_keys=False)


def _winner_title(searched: Searched) -> str:
    return "The winner" if searched.over is None else "The winner over the target"


def _winner(searched: Searched, winner: Judged) -> str:
    arch, target = searched.architecture(winner), searched.over
    picture = inline_svg(architecture_figure(target, arch), "winner")
    head = ("row", "kind", "pixels", "kernel", "channels", "inner channels", "MACs", "parameters")
    inside = arch if target is None else embed(target, arch)
    over = "" if target is None else f" over {target.name}"
    rows, extra = [], []
    both = zip(inside.rows, arch.rows, row_costs(inside), row_costs(arch), strict=True)
    for index, (own, row, cost, grown) in enumerate(both):
        outs = [a.rows[index].out_channels(a.widths_in[index]) for a in (inside, arch)]
        absent = isinstance(own, Skip)
        if absent:
            extra.append(index)
        rows.append(
            [
                arch.row_names[index],
                ("extra " if absent else "") + row.kind.replace("_", " "),
                str(arch.sizes_in[index]),
                _change(getattr(own, "kernel", None), getattr(row, "kernel", None)),
                _change(None if absent else outs[0], outs[1]),
                _change(getattr(own, "mid", None), getattr(row, "mid", None)),
                *_costs(cost, grown, absent),
            ]
        )
    path = inline_svg(space_figure(searched.space, winner.path), "space")
    numbers = {**winner.values, **winner.costs}
    pairs = [(QUANTITIES[name].name, _exact(name, value)) for name, value in numbers.items()]
    return (
        page.facts([("trial", str(winner.number)), *pairs])
        + page.figure(picture, f"{arch.name}{over}, row by row")
        + page.folded("The same as a table", page.table(head, rows, 2, extra))
        + page.folded("Its path through the space", page.figure(path, "the space and the path"))
    )


def _exact(name: str, value: float) -> str:
    """A number as tables show it."""
    return f"{value:,.0f}" if name == "macs" else QUANTITIES[name].say(value)


def _costs(own: RowCost, grown: RowCost, absent: bool) -> list[str]:
    return [
        _change(None if absent else before, after)
        for before, after in ((own.macs, grown.macs), (own.params, grown.params))
    ]


def _change(before: int | None, after: int | None) -> str:
    """`8 → 24`; the number alone where nothing changed or nothing was there."""
    if after is None:
        return ""
    return f"{after:,}" if before in (None, after) else f"{before:,} → {after:,}"


def _best_title(searched: Searched) -> str:
    return "The ten best" if len(searched.objectives) == 1 else "The Pareto front"


def _best(searched: Searched) -> str:
    several = len(searched.objectives) > 1
    shown = searched.front if several else searched.ranked[:TOP]
    columns = list(searched.objectives)
    columns += [
        name for name in COSTS if name not in columns and all(name in t.costs for t in shown)
    ]
    head = ["rank", "trial", *(QUANTITIES[name].name for name in columns)]
    rows = []
    for rank, trial in enumerate(shown, 1):
        numbers = {**trial.costs, **trial.values}
        rows.append([str(rank), str(trial.number), *(_exact(k, numbers[k]) for k in columns)])
    note = "None of these betters another in every objective." if several else ""
    return page.table(head, rows, 0) + page.paragraph(
        note or "Distinct architectures only.", "note"
    )


def _what_for(searched: Searched) -> str:
    if searched.over is None:
        return (
            "The winner is deployed: once the search is finished, weights.safetensors in its "
            "folder holds it with the weights that it inherits (nasaug evaluate judges them on the "
            "test images), and nasaug train --target trains it further or anew."
        )
    return (
        "The winner is the largest network that the target is trained inside. Deployed is the "
        "target alone: nothing of what the picture shows as added is left."
    )


def _reading(searched: Searched) -> str:
    texts = [
        "Accuracy here is top-1 on the validation images with weights inherited from the supernet. "
        "It is good for ranking, if the supernet ranks at all (nasaug rank-check tells), and it is "
        "below what each network would reach when trained alone.",
        _what_for(searched),
        "MACs are multiply-accumulates of convolutions and linear layers, batch 1, at the "
        "deployment resolution. Memory is the peak of int8 activations. Costs are exact, not "
        "measured; latency is predicted from a table.",
    ]
    return "".join(map(page.paragraph, texts))
