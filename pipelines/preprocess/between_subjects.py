"""What can be wrong between subjects: one that is a copy of another, and channels that differ."""

from collections.abc import Iterator, Sequence

from pipelines.preprocess.dataset import SubjectPlan
from stores.errors import BadRecording
from stores.names import subject_name

__all__ = ["Channels", "between_subjects"]

Channels = tuple[int, list[str]]
"""A subject, and what its channels are called."""


def between_subjects(
    plans: Sequence[SubjectPlan], stored: Channels | None = None
) -> Iterator[tuple[int, BadRecording]]:
    """Yield subject and problem of everything that does not go together.

    Parameters
    ----------
    plans : sequence of SubjectPlan
        Subjects that are to be written into one store.
    stored : Channels, optional
        Of a subject that is there already.
    """
    seen: dict[str, tuple[int, str]] = {}
    for plan in plans:
        for source in plan.sources:
            if "fingerprint" not in source:
                continue
            other, name = seen.setdefault(source["fingerprint"], (plan.subject, source["file"]))
            if other != plan.subject and name != source["file"]:
                what = f"{source['file']} of subject {plan.subject} holds the same as {name} of subject {other}"
                fix = "one of the two is mislabelled: download it again, or leave the subject out"
                yield plan.subject, BadRecording(what, fix)
    known = [*([stored] if stored else []), *((plan.subject, plan.ch_names) for plan in plans)]
    for subject, names in known[1:]:
        first, others = known[0]
        if names != others and subject != first:
            odd = sorted(set(names) ^ set(others))
            how = (
                f"other channels than {subject_name(first)}"
                if odd
                else f"its channels in another order than {subject_name(first)}"
            )
            what = f"{subject_name(subject)} has {how}: {', '.join((odd or names)[:5])}"
            fix = "name the channels that all share in a recipe of your own, or put the subject into another --store"
            yield subject, BadRecording(what, fix)
