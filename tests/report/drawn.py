"""Reading a picture back: its marks, and the numbers that they stand for by the axis drawn beside them."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np

__all__ = ["across", "marks", "texts"]


def marks(picture, element):
    """Return the attributes of every such element, with what it says on hovering."""
    drawn = ElementTree.fromstring(re.search(r"<svg.*?</svg>", picture, re.DOTALL)[0])
    return [
        {**{key: _number(value) for key, value in mark.attrib.items()}, "said": mark.findtext("title") or ""}
        for mark in drawn.iter(element)
    ]


def texts(picture):
    """Return what is written, and where."""
    drawn = ElementTree.fromstring(re.search(r"<svg.*?</svg>", picture, re.DOTALL)[0])
    return [(mark.text, float(mark.get("x")), float(mark.get("y"))) for mark in drawn.iter("text")]


def across(picture, *, upwards=False):
    """Return the function from places to the numbers of the axis: a line through the numbers written on it."""
    numbers = [(float(text), x, y) for text, x, y in texts(picture) if text and re.fullmatch(r"-?\d+(\.\d+)?", text)]
    at = 2 if upwards else 1
    same = 1 if upwards else 2  # numbers of one axis stand in a row
    rows = {}
    for found in numbers:
        rows.setdefault(found[same], []).append(found)
    axis = max(rows.values(), key=len)
    slope, offset = np.polyfit([found[at] - 4 * upwards for found in axis], [found[0] for found in axis], 1)
    return lambda place: slope * place + offset


def _number(text):
    try:
        return float(text)
    except ValueError:
        return text
