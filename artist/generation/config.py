"""How codes are sampled: settings, defaults and limits. Imports no torch."""

from dataclasses import dataclass

from data.errors import ConfigError

CFG_SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How a code is chosen from its distribution.

    Attributes:
        temperature: Divides the logits; 1.0 is the model's own distribution.
        top_k: Keep the k likeliest codes, and all that tie with the k-th. None means off.
        top_p: Keep the likeliest codes that together hold this probability. None means off.
        cfg_scale: Classifier-free guidance, logits = without + scale * (with - without), where
            `without` sees an empty caption. 1.0 means off. (Ho and Salimans 2022.) Only a model
            trained with caption dropout knows the empty caption.
        cfg_schedule: How the scale goes from the first code to the last: `constant`; `linear`, from
            1 up to `cfg_scale`; `cosine`, the same slowly at both ends. The first codes lay out the
            picture, and strong guidance there makes pictures alike. (Chang et al. 2023, Muse.)
    """

    temperature: float = 1.0
    top_k: int | None = 100
    top_p: float | None = None
    cfg_scale: float = 1.0
    cfg_schedule: str = "constant"

    def __post_init__(self) -> None:
        if self.cfg_schedule not in CFG_SCHEDULES:
            raise ConfigError(
                f"cfg_schedule={self.cfg_schedule!r} is unknown; use one of "
                f"{', '.join(CFG_SCHEDULES)}."
            )
        if self.temperature <= 0:
            raise ConfigError(
                f"temperature={self.temperature} must be positive; for the likeliest "
                "code at each step use top_k=1."
            )
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(
                f"top_k={self.top_k} must be at least 1; leave it out to turn it off."
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p} must lie in (0, 1].")
