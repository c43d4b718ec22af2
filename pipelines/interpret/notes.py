"""What limits the reading of profiles, said of exactly those that are read."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.interpret.over_subjects import FEWEST_SUBJECTS
from pipelines.train.origin import marked

__all__ = ["notes_of"]

ALIKE = 0.5  # of the highest correlation there can be; assumed
FAINT = 0.2  # correlation between halves of the images, below which another map cannot be told from noise; assumed


def notes_of(profiles: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what to say about some profiles, a line each.

    Parameters
    ----------
    profiles : sequence of mapping
        Fields of `pipelines.interpret.profile.Profile`, as found.json keeps them or as ``vars`` gives them.
    """
    notes = [note for profile in profiles for note in profile["notes"]]
    notes += [note for profile in profiles if (note := _trust(profile))]
    nothing = list(dict.fromkeys(_name(profile) for profile in profiles if not profile["is_found"]))
    if nothing:
        notes.append(
            f"no evidence is shown of {', '.join(nothing)}: mean over images above zero, tested over subjects from "
            f"{FEWEST_SUBJECTS} on, else in each; shares of nothing have a form too"
        )
    if any(profile["windows"] for profile in profiles):
        notes.append(
            "clusters say that there is evidence, not from when to when: their edges are not tested, are no onsets, "
            "and are smeared by the recordings' filters"
        )
    kinds = ("untrained_windows", "untrained_bands", "untrained_groups")
    by_chance = sum(any(profile[kind] for kind in kinds) for profile in profiles)
    if by_chance:
        notes.append(
            f"random weights show something in {by_chance} of {len(profiles)} profiles: one in seven does by chance, "
            "and more where the recordings hold much, since a random projection passes some of it on; more seeds "
            "average it away"
        )
    return list(dict.fromkeys(notes))


def _name(profile: Mapping[str, Any]) -> str:
    return marked(profile["embedding"], profile["weights"])


def _trust(profile: Mapping[str, Any]) -> str:
    """Return why a map of found evidence is not to be trusted, or why that cannot be judged; empty where it can be."""
    if not profile["is_found"] or profile["p"] is None:
        return ""
    who = f"{_name(profile)}, subject {profile['subject']}"
    reliability = profile["reliability"]
    if reliability < FAINT:
        return (
            f"{who}: the map differs too much between halves of the images (correlation {reliability:.2f}) to be "
            "compared with that of random weights"
        )
    highest = (reliability * max(profile["random_reliability"], 0.0)) ** 0.5
    if highest >= FAINT and abs(profile["similarity"]) > ALIKE * highest:
        return (
            f"{who}: random weights give a similar map (correlation {profile['similarity']:.2f}; the same map would "
            f"have {highest:.2f}): do not trust it"
        )
    return ""
