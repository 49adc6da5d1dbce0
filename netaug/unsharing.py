"""Weight sharing, then unsharing: equal rows of a stage train one set of weights at first.

Deep networks repeat a row; sharing its weights for the first part of the training is faster to
converge (Yang et al., "Speeding up Deep Learning Training by Sharing Weights and Then Unsharing",
arXiv 2110.03848). There the L members of a group have weights w_i = w_0 / sqrt(L) + v_i, and the
first phase trains w_0 alone (v_i = 0), on g_0 = sum g_i / sqrt(L). SGD with learning rate lr and
decay d moves w_i = w_0 / sqrt(L) by

    -lr (g_0 + d w_0) / sqrt(L) = -lr (mean g_i + d w_i),

so the first phase is plain training, rate and decay unchanged, from equal weights and with every
g_i replaced by its group's mean; that is what is done here. Momentum is linear and follows, and the
norm of the mean over all members is that of g_0, so clipping and gradient surgery agree too. In the
second phase every w_i goes on with its own gradient.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

from nasaug.netaug.options import Options
from nasaug.supernet import Architecture, Network, Row, Skip
from nasaug.training import Batch, Losses, State, Step

Groups = tuple[tuple[int, ...], ...]


class UnshareOptions(Options):
    """until: the share of training during which equal rows of a stage share their weights."""

    until: float = Field(0.5, gt=0, lt=1)


def sharing_groups(arch: Architecture) -> Groups:
    """The indices of rows that can share weights: equal rows of one stage with equal inputs, two or
    more of them in a group. For a target inside a larger network, `arch` is the larger one.

    Raises: ValueError for an architecture in which no row repeats (the micro targets).
    """
    equal: defaultdict[tuple[str, Row, int], list[int]] = defaultdict(list)
    for index, (name, row, width) in enumerate(
        zip(arch.row_names, arch.rows, arch.widths_in, strict=True)
    ):
        stage, inside, _ = name.partition(".")
        if inside and not isinstance(row, Skip):
            equal[stage, row, width].append(index)
    groups = tuple(tuple(rows) for rows in equal.values() if len(rows) > 1)
    if not groups:
        raise ValueError(
            f"weight sharing needs a stage with two equal rows, but {arch.name} has none; choose "
            "another network (mbv2_tiny has four such stages) or train without unsharing"
        )
    return groups


def share_weights(
    net: Network, groups: Groups, companions: Sequence[Mapping[str, Tensor]] = ()
) -> None:
    """Give all rows of a group the parameters of its first: convolutions, norms, squeezes.

    `companions` are mappings from parameter names to tensors that are treated alike: momentum
    buffers, averaged weights. A name that is missing there is passed over. Running statistics are
    never shared.
    """
    own = dict(net.named_parameters())
    with torch.no_grad():
        for names in _parameters(net, groups):
            for mapping in (own, *companions):
                members = [mapping[name] for name in names if name in mapping]
                for member in members[1:]:
                    member.copy_(members[0])


def unsharing_step(step: Step, groups: Groups, options: UnshareOptions) -> Step:
    """`step`, with the groups of `sharing_groups(net.arch)` on one set of weights until
    `options.until`. Nothing is remembered: the state's progress decides.

    The weights are made equal before every step, not only before the first: an all-reduce may sum
    three or more workers in another order at another place of memory.
    """

    def shared(net: Network, batch: Batch, state: State) -> Losses:
        if state.progress >= options.until:
            return step(net, batch, state)
        share_weights(net, groups, state.companions())
        losses = step(net, batch, state)
        for gradients in state.gradient_sets():
            _average_gradients(net, groups, gradients)
        return losses

    return shared


def _average_gradients(net: Network, groups: Groups, gradients: Mapping[str, Tensor]) -> None:
    """In place. Of sums over several batches it is right after each: averaging is linear."""
    with torch.no_grad():
        for names in _parameters(net, groups):
            mean = torch.stack([gradients[name] for name in names]).mean(0)
            for name in names:
                gradients[name].copy_(mean)


def _parameters(net: Network, groups: Groups) -> Iterator[tuple[str, ...]]:
    """The names of parameters that are one and the same, group by group."""
    for group in groups:
        for name, _ in net.blocks[group[0]].named_parameters():
            yield tuple(f"blocks.{index}.{name}" for index in group)
