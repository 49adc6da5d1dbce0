"""A run's network with the weights of its convolutions as long as those of other runs.

    python benchmarks/rescaled.py NETAUG_RUN BASELINE_RUN... --out rescaled.safetensors
    nasaug detect train --data coco:PATH --init rescaled.safetensors

In front of batch norm the length of a weight changes nothing of what a network computes, but
training at one learning rate turns a longer weight less. So this tells whether a backbone trains
worse because its weights are longer. Every convolution is scaled by one number, to the mean squared
norm that it has in the other runs, and its norm's running statistics along with it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import torch

from nasaug.supernet import Network
from nasaug.training import load_weights, read_facts, save_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("like", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    weights = given.run / "weights.safetensors"
    net = load_weights(weights)
    images = torch.randn(16, net.arch.in_channels, *2 * [net.arch.resolution])
    with torch.no_grad():
        before = net(images)
        factors = rescale(net, [load_weights(run / "weights.safetensors") for run in given.like])
        change = (net(images) - before).abs().max() / before.std()
    save_weights(given.out, net, read_facts(weights))
    for name, factor in factors.items():
        print(f"{name}: times {factor:.2f}")
    print(f"largest difference of a logit: {change:.1e} standard deviations")


def rescale(net: Network, like: list[Network]) -> dict[str, float]:
    """In place; by which number each convolution was multiplied."""
    own, others = net.state_dict(), [other.state_dict() for other in like]
    factors = {}
    for name, weight in own.items():
        norm = name.removesuffix("weight") + "norm"
        if weight.ndim != 4 or f"{norm}.running_mean" not in own:
            continue
        goal = mean(float(other[name].square().sum()) for other in others)
        factors[name] = (goal / float(weight.square().sum())) ** 0.5
        weight *= factors[name]
        own[f"{norm}.running_mean"] *= factors[name]
        own[f"{norm}.running_var"] *= factors[name] ** 2
    return factors


if __name__ == "__main__":
    main()
