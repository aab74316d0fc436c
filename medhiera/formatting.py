"""Numbers and durations as text, the same in tables, logs and cards."""

from collections.abc import Sequence


def value_text(limits: Sequence[float] | None) -> str:
    """Limits in a sentence: `0.761 to 0.808`, or `none`."""
    return "none" if limits is None else f"{limits[0]:.3f} to {limits[1]:.3f}"


def interval_text(interval: Sequence[float] | None) -> str:
    """Limits in a table's cell: `0.761 to 0.808`, or a dash."""
    return "–" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


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
