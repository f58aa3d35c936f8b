"""Durations in a readable form."""


def duration(seconds: float) -> str:
    """Format seconds as h:mm:ss, or as m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
