"""The NetAug step (Cai et al., ICLR 2022, Equation 2): L(W_t) + alpha L([W_t, W_i]).

The target first, then one sampled network that contains it, on the same batch; the gradients add
up on the shared weights, and the caller's optimizer takes one step.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from nasaug.netaug.augmentation import Augmentation
from nasaug.supernet import Network, sort_channels
from nasaug.training import Batch, Losses, State, Step


class NetAugOptions(BaseModel):
    """alpha: weight of the sampled network's loss. width_until: the share of training during which
    widths are augmented and channels sorted; after it, only expand ratios, kernels and depth."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: float = Field(1.0, ge=0, le=100)
    width_until: float = Field(0.5, ge=0, le=1)
    sort_channels: bool = True


def netaug_step(augmentation: Augmentation, options: NetAugOptions) -> Step:
    """The step for a network of `augmentation.largest`."""

    def step(net: Network, batch: Batch, state: State) -> Losses:
        images, labels = batch
        wide = state.progress < options.width_until
        if wide and options.sort_channels and state.epoch_begins:
            sort_channels(net, state.companions())
        with state.autocast():
            target_loss = state.loss(net(images, augmentation.target), labels)
        target_loss.backward()
        space = augmentation.helpers if wide else augmentation.narrow
        helper = space.sample(state.rng)
        with state.autocast():
            helper_loss = state.loss(net(images, helper), labels)
        (options.alpha * helper_loss).backward()
        return {"target": target_loss.detach(), "helper": helper_loss.detach()}

    return step
