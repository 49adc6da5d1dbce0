"""Small trained weights that come with the package, by the name of their target.

They lie in `embedded/weights`, each beside a card: how they were made, and their accuracy on all
test images of Fashion-MNIST. `embedded/ship.py` puts them there.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

SHIPPED = {
    "micro_10k": "micro_10k.safetensors",
    "micro_40k": "micro_40k.safetensors",
}
FOLDER = Path(str(files("nasaug.training.embedded"))) / "weights"


def shipped_weights(name: str) -> Path | None:
    """The file of the weights shipped for the target `name`; None where there are none."""
    path = FOLDER / SHIPPED[name] if name in SHIPPED else None
    return path if path is not None and path.is_file() else None


def shipped_names() -> tuple[str, ...]:
    """The targets that weights are shipped for."""
    return tuple(name for name in SHIPPED if shipped_weights(name) is not None)
