"""Pictures of spaces, architectures and studies, as SVG or PNG (matplotlib, no display needed)."""

from nasaug.pictures.architecture import architecture_figure, draw_architecture
from nasaug.pictures.canvas import inline_svg, render, save_picture
from nasaug.pictures.equal import Gap, Line, equal_figure
from nasaug.pictures.memory import draw_memory, memory_figure
from nasaug.pictures.plots import (
    Point,
    Quantity,
    cost_figure,
    history_figure,
    importance_figure,
    pareto_front,
    supernet_figure,
)
from nasaug.pictures.space import draw_space, space_figure

__all__ = [
    "Gap",
    "Line",
    "Point",
    "Quantity",
    "architecture_figure",
    "cost_figure",
    "draw_architecture",
    "draw_memory",
    "draw_space",
    "equal_figure",
    "history_figure",
    "importance_figure",
    "inline_svg",
    "memory_figure",
    "pareto_front",
    "render",
    "save_picture",
    "space_figure",
    "supernet_figure",
]
