"""The note on a study that the dashboard shows, in Markdown: what was searched, how to read it."""

from __future__ import annotations

from nasaug.pipelines.report_plots import QUANTITIES, limits_in_words
from nasaug.pipelines.searched import COSTS, Searched
from nasaug.search import format_count, format_macs
from nasaug.supernet import macs, params, peak_memory

MARK = "\n\n---\n*Above: written by `nasaug dashboard`. What stands below this line is kept.*\n"

READING = """\
### How to read the plots
- **Objective value**: {judged}. It ranks networks; each would reach more when trained alone.
- **History**: every trial in its order, and the best so far. Early trials are uniform draws.
- **Hyperparameter importance** (PED-ANOVA) compares the best tenth of the trials with all of them.
  Once the sampler has learnt what is good these are alike, so that what matters most can come out
  last. `nasaug report` shows the share of the variance that each decision explains instead.
- **Slice and contour plots**: a decision's values against the judgement. Decisions of a row that is
  absent stand at their first value.
- **Trials**: user attributes `macs`, `params`, `memory`, `flash` (bytes), `latency` (ns, where a
  table was given), `feasible`. Nothing over the limits was ever evaluated. Pruned trials were
  dropped early, on a part of the validation images. The best trials carry a picture (artifact).
"""


def study_note(searched: Searched, picture: str | None) -> str:
    """The note; `picture` is the path on the server of the winner's picture."""
    space = searched.space
    where = f"{'down in' if space.is_table else 'around'} {_quoted(space.name)}"
    around = "" if space.is_table else "around the target, "
    low, high = format_macs(space.source.cheapest), format_macs(space.source.dearest)
    lines = [
        f"## Search {where}, {limits_in_words(searched)}",
        searched.progress,
        "",
        f"- **space**: {format_count(space.count())} members, {around}{low} to {high} MACs",
        f"- **objectives**: {', '.join(searched.objectives)}",
        f"- **data**: {_quoted(searched.config.data.name)}",
        f"- **sampler**: {searched.config.sampler}, seed {searched.config.seed}",
        f"- **run**: {_quoted(str(searched.folder))}",
        "",
        *_winner(searched, picture),
    ]
    judged = {
        "accuracy": "top-1 on the validation images (a fraction) with weights inherited from the "
        "supernet",
        "help": "how far the network's gradient lowers the target's validation loss (first order)",
    }
    said = "; ".join(judged[name] for name in searched.objectives if name in judged)
    return "\n".join(lines) + "\n" + READING.format(judged=said or "a cost")


def _winner(searched: Searched, picture: str | None) -> list[str]:
    winner = searched.winner
    if winner is None:
        return ["No trial is finished yet.", ""]
    arch, target = searched.architecture(winner), searched.target
    alone = searched.space.is_table
    over = "" if alone else " over the target"
    costs = [("MACs", macs), ("parameters", params), ("peak int8 memory (bytes)", peak_memory)]
    rows = [f"| {name} | {cost(target):,} | {cost(arch):,} |" for name, cost in costs]
    values = [
        f"{QUANTITIES[name].name} {QUANTITIES[name].say(value)}"
        for name, value in winner.values.items()
        if name not in COSTS
    ]
    return [
        f"### The winner: trial {winner.number}, {', '.join(values)}",
        "",
        f"| | {'smallest member' if alone else 'target'} | winner |",
        "|---|---:|---:|",
        *rows,
        "",
        *([f"![the winner{over}, row by row]({picture})", ""] if picture else []),
    ]


def merged(ours: str, before: str) -> str:
    """`ours` with what people have written: below the mark, or all of a note without one."""
    _, mark, theirs = before.partition(MARK)
    return ours.rstrip() + MARK + (theirs if mark else before)


def _quoted(text: str) -> str:
    """A name that is shown as it is, whatever Markdown would make of it."""
    clean = "".join(character if character.isprintable() else "?" for character in text)
    return f"`{clean.replace('`', chr(39))}`"
