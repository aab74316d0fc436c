"""Which of some names of findings another spelling means: spaces, underscores and case do not count.

Below inference/ and evaluation/, where the names of models, datasets and files of predictions meet.
"""

from collections.abc import Sequence


def plain_name(name: str) -> str:
    """A finding's name without what does not count."""
    return name.replace("_", " ").casefold()


def find_name(name: str, names: Sequence[str]) -> int | None:
    """The place of the one that a name means; the very same name comes first.

    Args:
        name: of a finding.
        names: among which it is looked for.

    Returns:
        None where it means none of them, or several.
    """
    if name in names:
        return names.index(name)
    alike = [place for place, other in enumerate(names) if plain_name(other) == plain_name(name)]
    return alike[0] if len(alike) == 1 else None


def find_names(wanted: Sequence[str], names: Sequence[str]) -> list[int | None]:
    """The place of each; of several that mean one, only the very same name has it."""
    places = [find_name(name, names) for name in wanted]
    return [
        place if place is None or places.count(place) == 1 or names[place] == name else None
        for name, place in zip(wanted, places, strict=True)
    ]
