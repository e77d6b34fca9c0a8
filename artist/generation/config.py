"""Settings of sampling: defaults and limits. Imports no torch."""

from dataclasses import asdict, dataclass

from data.errors import ConfigError

CFG_SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How a code is sampled from its distribution.

    Attributes:
        temperature: Divides the logits; lower is less random, 1.0 is the model's distribution.
        top_k: Keep the k most likely codes and all ties with the k-th. None means off.
        top_p: Keep the most likely codes that together have this probability. None means off.
        cfg_scale: Classifier-free guidance: logits = empty + scale * (with - empty), where `empty`
            is conditioned on an empty caption. 1.0 means off. Needs a model trained with caption
            dropout. (Ho and Salimans 2022.)
        cfg_schedule: Scale from the first code to the last: `constant`; `linear`, from 1 up to
            `cfg_scale`; `cosine`, the same with slow ends. The first codes determine the layout,
            and strong guidance there reduces diversity. (Chang et al. 2023, Muse.)
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
                f"temperature={self.temperature} must be positive; for the most likely "
                "code at each step use top_k=1."
            )
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(
                f"top_k={self.top_k} must be at least 1; leave it out to turn it off."
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p} must be in (0, 1].")

    def __str__(self) -> str:
        """Return the settings that are on, as text for a page's footer."""
        on = {k: v for k, v in asdict(self).items() if v is not None}
        if self.cfg_scale == 1.0:
            del on["cfg_schedule"]
        return ", ".join(f"{k} {v if isinstance(v, str) else f'{v:g}'}" for k, v in on.items())
