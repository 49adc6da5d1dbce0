"""The options of the parts that a training step is made of, each with its source."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nasaug.supernet import Bits


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NetAugOptions(Options):
    """NetAug (Cai et al., ICLR 2022): L(W_t) + alpha L([W_t, W_i]).

    helpers: how many networks are sampled a step. sampling: every decision by itself (independent),
    once a stage (tied), or always the largest network. mixing: the helpers' losses are added up
    (sum), averaged (mean), added with an alpha that falls linearly to 0 (anneal), or averaged with
    what opposes the target's gradient projected out (surgery; PCGrad, Yu et al., 2020). norms:
    whether target and helpers scale and shift their features alike (shared) or the target has batch
    norms of its own (separate). width_until: the share of training during which widths are
    augmented and channels sorted; after it, only expand ratios, kernels and depth.

    What makes help cheaper: `every` how many steps there is any; on which `share` of the batch; at
    which `resolution` (pixels; None: the target's); between which shares of training (`start`,
    `stop`).
    """

    alpha: float = Field(1.0, ge=0, le=100)
    helpers: int = Field(1, ge=1, le=64)
    sampling: Literal["independent", "tied", "largest"] = "independent"
    mixing: Literal["sum", "mean", "anneal", "surgery"] = "sum"
    norms: Literal["shared", "separate"] = "shared"
    width_until: float = Field(0.5, ge=0, le=1)
    sort_channels: bool = True
    every: int = Field(1, ge=1, le=10_000)
    share: float = Field(1.0, gt=0, le=1)
    resolution: int | None = Field(None, ge=8, le=2048)
    start: float = Field(0.0, ge=0, lt=1)
    stop: float = Field(1.0, gt=0, le=1)

    def helps(self, step: int, progress: float) -> bool:
        """Whether there are helpers in this step."""
        return step % self.every == 0 and self.start <= progress < self.stop

    @model_validator(mode="after")
    def _differ(self) -> NetAugOptions:
        if self.sampling == "largest" and self.helpers > 1:
            raise ValueError(
                f"sampling largest trains one network a step, but got helpers {self.helpers}; "
                "use helpers 1"
            )
        if self.start >= self.stop:
            raise ValueError(
                f"start must be below stop, but got {self.start} and {self.stop}; helpers need a "
                "share of training"
            )
        return self


class RelationalOptions(Options):
    """Relational distillation (Park et al., CVPR 2019), the largest augmented network as online
    teacher: weight (distance L_D + angle L_A).

    anchors: angles are taken at so many images of a batch, drawn anew each time (None: at all; time
    grows with their number times the batch's square). attached: the gradient reaches the teacher's
    weights too. teacher_loss: the teacher has its own cross entropy, weighted as a helper's (as the
    largest helper has anyway).
    """

    weight: float = Field(1.0, gt=0, le=1000)
    distance: float = Field(1.0, ge=0, le=1000)
    angle: float = Field(2.0, ge=0, le=1000)
    anchors: int | None = Field(64, ge=1)
    attached: bool = True
    teacher_loss: bool = False


class InPlaceOptions(Options):
    """In-place distillation: the sampled networks teach the target, weight T^2 KL(helper, target).

    certainty: each image counts by the teacher's certainty about it, 1 - entropy / log(classes)
    (NetDistiller, Yu et al., DAC 2024).
    """

    weight: float = Field(1.0, gt=0, le=1000)
    temperature: float = Field(1.0, gt=0, le=100)
    certainty: bool = False


class DistillOptions(Options):
    """An outer teacher (Hinton et al., 2015): (1 - weight) L + weight T^2 KL(teacher || student).

    helpers: the sampled networks learn from it too.
    """

    weight: float = Field(0.5, gt=0, le=1)
    temperature: float = Field(4.0, gt=0, le=100)
    helpers: bool = True


class QuantiseOptions(Options):
    """Quantisation-aware training (Jacob et al., CVPR 2018): every pass, the helpers' too, computes
    with numbers rounded to so many bits, weights by channel, activations over their batch's range;
    batch-norm statistics are those of such passes. What is shipped is float, and ready for int8."""

    weight_bits: int = Field(8, ge=2, le=8)
    activation_bits: int = Field(8, ge=2, le=8)

    def bits(self) -> Bits:
        return Bits(self.weight_bits, self.activation_bits)


class BoostOptions(Options):
    """NetBooster (Yu et al., DAC 2023): pointwise convolutions grow into inverted residuals.

    ratio: their expand ratio. every: of how many convolutions one grows. linear_from, linear_until:
    the shares of training between which their activations are driven linear; then they merge back.
    """

    ratio: int = Field(6, ge=1, le=64)
    every: int = Field(2, ge=1, le=64)
    linear_from: float = Field(0.5, ge=0, lt=1)
    linear_until: float = Field(0.8, gt=0, lt=1)

    @model_validator(mode="after")
    def _in_order(self) -> BoostOptions:
        if self.linear_from >= self.linear_until:
            raise ValueError(
                "linear_from must be below linear_until, but got "
                f"{self.linear_from} and {self.linear_until}"
            )
        return self

    def slope(self, progress: float) -> float:
        """How linear the activations are: 0 the activation itself, 1 the identity, in 100 steps."""
        risen = (progress - self.linear_from) / (self.linear_until - self.linear_from)
        return round(min(1.0, max(0.0, risen)), 2)
