"""Training the supernet: single path one-shot with uniform sampling (Guo et al., ECCV 2020)."""

from __future__ import annotations

from nasaug.supernet import Network, SearchSpace
from nasaug.training import Batch, Losses, State, Step


def single_path_step(space: SearchSpace) -> Step:
    """Each step trains one path, drawn uniformly from `space`, on the shared weights."""

    def step(net: Network, batch: Batch, state: State) -> Losses:
        images, labels = batch
        path = space.sample(state.rng)
        with state.autocast():
            loss = state.loss(net(images, path), labels)
        loss.backward()
        return {"path": loss.detach()}

    return step
