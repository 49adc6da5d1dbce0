"""What a network is: rows, named targets, the elastic network, the search space, costs."""

from nasaug.supernet.architecture import Architecture, embed
from nasaug.supernet.boosting import at_slope, boost, contract, is_boosted
from nasaug.supernet.channel_masks import ChannelMasks, maskable
from nasaug.supernet.channels import round_channels
from nasaug.supernet.choices import Value
from nasaug.supernet.costs import (
    RowCost,
    count_with_fvcore,
    flash_size,
    macs,
    macs_at,
    params,
    peak_memory,
    row_costs,
    shared_macs,
)
from nasaug.supernet.cuts import Cuts, cutting
from nasaug.supernet.fitting import Fit, check_fit, in_kb
from nasaug.supernet.graph import Edge
from nasaug.supernet.limits import Infeasible, Limits
from nasaug.supernet.memory import row_flash
from nasaug.supernet.names import did_you_mean
from nasaug.supernet.network import Network, Output
from nasaug.supernet.noise import Noise
from nasaug.supernet.norms import ElasticNorm, synchronise_batch_norm
from nasaug.supernet.published import (
    fill,
    is_dense,
    load_published,
    published_classes,
    read_pickle_safely,
)
from nasaug.supernet.quantised import Bits
from nasaug.supernet.region import ChoicePath, Count, Region
from nasaug.supernet.rows import (
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    MaxPool,
    Row,
    Skip,
)
from nasaug.supernet.sorting import sort_channels
from nasaug.supernet.space import SearchSpace
from nasaug.supernet.spaces import load_space, space_names
from nasaug.supernet.streams import sort_features
from nasaug.supernet.targets import Factors, load_target, published_factors, target_names
from nasaug.supernet.torchvision_weights import load_torchvision, torchvision_networks

__all__ = [
    "Architecture",
    "Bits",
    "Bottleneck",
    "ChannelMasks",
    "ChoicePath",
    "Conv",
    "Count",
    "Cuts",
    "DepthwiseSeparable",
    "Edge",
    "ElasticNorm",
    "Factors",
    "Fit",
    "GlobalAvgPool",
    "Infeasible",
    "InvertedResidual",
    "Limits",
    "Linear",
    "MaxPool",
    "Network",
    "Noise",
    "Output",
    "Region",
    "Row",
    "RowCost",
    "SearchSpace",
    "Skip",
    "Value",
    "at_slope",
    "boost",
    "check_fit",
    "contract",
    "count_with_fvcore",
    "cutting",
    "did_you_mean",
    "embed",
    "fill",
    "flash_size",
    "in_kb",
    "is_boosted",
    "is_dense",
    "load_published",
    "load_space",
    "load_target",
    "load_torchvision",
    "macs",
    "macs_at",
    "maskable",
    "params",
    "peak_memory",
    "published_classes",
    "published_factors",
    "read_pickle_safely",
    "round_channels",
    "row_costs",
    "row_flash",
    "shared_macs",
    "sort_channels",
    "sort_features",
    "space_names",
    "synchronise_batch_norm",
    "target_names",
    "torchvision_networks",
]
