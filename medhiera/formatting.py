"""Numbers, durations and the mark of a run as text, the same in tables, logs, figures and cards."""

from collections.abc import Sequence


def value_text(limits: Sequence[float] | None) -> str:
    """Limits in a sentence: `0.761 to 0.808`, or `none`."""
    return "none" if limits is None else f"{limits[0]:.3f} to {limits[1]:.3f}"


def interval_text(interval: Sequence[float] | None) -> str:
    """Limits in a table's cell: `0.761 to 0.808`, or a dash."""
    return "–" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def threshold_text(threshold: float) -> str:
    """A threshold with as many digits as using it takes: `0.4887`, `0.01952`."""
    return f"{threshold:#.4g}"


def percent(share: float) -> str:
    """A share in percent, without the sign: `12`; below 1 % with one digit that is not 0: `0.3`."""
    return f"{100 * share:.0f}" if share == 0 or abs(share) >= 0.0095 else f"{100 * share:.1g}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    minutes, hours = round(seconds / 60), int(seconds / 3600)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def mark_of(*, is_smoke_run: bool, has_phantoms: bool, has_images: bool) -> str:
    """What a figure says of itself where nothing follows from it for patients; empty for a full run.

    Args:
        is_smoke_run: the model only proves the software.
        has_phantoms: it learned from, or was scored on, synthetic images.
        has_images: real ones were among them.
    """
    words = ["synthetic phantoms" + " among real images" * has_images] if has_phantoms else []
    return " · ".join([*words, *["smoke run, not a trained model"] * is_smoke_run])
