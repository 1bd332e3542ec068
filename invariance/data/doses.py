"""What names and tags say of a slice's dose, patient, kernel and thickness."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

__all__ = [
    "Dose",
    "dose_of",
    "doses_in_names",
    "kernel_in",
    "patient_in",
    "side_of",
    "thickness_in",
    "undosed",
    "unnumbered",
]

Dose = Literal["low", "high"]

_LOW = re.compile(
    r"\b((qd|ld)(?!\w)|(quarter|qdct|ldct|ulct|uldct|low|reduced|ultra ?low)(?![a-z])"
    r"|(half|fifth|tenth|1/\d+)(?= ?dose)|(5|10|12\.5|20|25|50) ?(%|percent)(?!\w))"
    r"(?! ?(noise|contrast|res|resolution|kv|energy|quality|freq\w*)\b)( ?dose(?![a-z]))?"
)
_HIGH = re.compile(
    r"\b((fd|nd|hd)(?!\w)|(full|fdct|sdct|ndct|hdct|high)(?![a-z])"
    r"|(routine|normal|standard|regular)(?= ?dose)|100 ?(%|percent)(?!\w))"
    r"(?! ?(noise|contrast|res|resolution|kv|energy|quality|freq\w*|pitch|fov|body)\b)( ?dose(?![a-z]))?"
)
# What the two sides of a training set are called; folders and files alone are called so.
_NOISY = re.compile(
    r"\b(noisy|noised|degraded|corrupted|lq|low ?quality|inputs?|high ?noise"
    r"|(?<!low )(?<!no )(?<!without )noise(?! ?(free|less)))(?![a-z])"
)
_CLEAN = re.compile(
    r"\b(clean|noise ?(free|less)|(low|no|without) ?noise|gts?|ground ?truths?|hq|high ?quality|targets?"
    r"|labels?|references?|refs?)(?![a-z])"
)
_WEAK = re.compile(r"inputs?|targets?|labels?|references?|refs?|noise")  # many a folder is called so
_COLLECTIONS = re.compile(
    r"ldct[\s_-]*and[\s_-]*projection[\s_-]*data|low[\s_-]*dose[\s_-]*ct[\s_-]*grand", re.IGNORECASE
)
_PUBLISHED = re.compile(r"(?<![A-Za-z0-9])([CLN]\d{3})(?![A-Za-z0-9])")
_NOBODY = re.compile(
    r"|x+|0+|none|unknown|n/?a|anon\w*|no ?name|patient|patient ?id|de-?id\w*|removed|pid"
    r"|(train|training|val|valid|validation|test|testing|images?|imgs?|slices?"
    r"|data|dataset|case|scan|npy|ct) ?",
    re.I,
)
_KERNEL = re.compile(r"(?<![A-Za-z0-9])([A-Z]{1,2}\d{2}[a-z]?|sharp|smooth|soft|bone|lung)(?![A-Za-z0-9])")
_THICKNESS = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?) ?mm\b", re.I)


def _words(text: str) -> str:
    """Words apart, in lower case; the names of public collections, which speak of both doses, gone."""
    plain = _COLLECTIONS.sub(" ", text)
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain)  # LowDose
    return " ".join(re.split(r"[^a-z0-9%./]+", plain.lower()))


def dose_of(text: str) -> Dose | None:
    """The dose that a description states; None where it states none, or both.

    Example:
        >>> dose_of("quarter_1mm"), dose_of("Full Dose Images"), dose_of("L067_QD_1_1.CT.0001.IMA")
        ('low', 'high', 'low')
        >>> dose_of("abdomen"), dose_of("full and quarter dose"), dose_of("high resolution")
        (None, None, None)
    """
    return _side(text, _LOW, _HIGH)


def side_of(name: str) -> Dose | None:
    """The side of a training pair that the name of a folder or file tells.

    Example:
        >>> side_of("L067_12_input.npy"), side_of("LDCT_7_target.npy"), side_of("low_noise")
        ('low', 'high', 'high')
        >>> side_of("quarter_1mm"), side_of("input and target")
        (None, None)
    """
    return _side(name, _NOISY, _CLEAN)


def _side(text: str, low: re.Pattern[str], high: re.Pattern[str]) -> Dose | None:
    words = re.sub(r"(?<=[a-z])\.|\.(?=[a-z])", " ", _words(text)).replace(".", " . ")
    found = low.search(words), high.search(words)
    if (found[0] is None) == (found[1] is None):
        return None
    return "low" if found[0] is not None else "high"


def doses_in_names(root: str, folders: Sequence[str], file: str) -> list[Dose | None]:
    """What names tell: folders in words, folders by their side, and the file likewise.

    The folder nearest to the file counts of those that say anything. That which was given may be called
    anything; only a name that says nothing else counts.

    Arguments:
        root: The folder that was given.
        folders: Those below it, outermost first.
        file: The file's name.
    """
    told: list[Dose | None] = []
    for tells in (dose_of, side_of):
        inner = next((dose for name in reversed(folders) if (dose := tells(name)) is not None), None)
        told += [inner or (tells(root) if _says_nothing_else(root) else None), tells(file)]
    return told


def _says_nothing_else(name: str) -> bool:
    """Whether a folder's name says nothing but dose, thickness, kernel and patient."""
    rest = undosed(_THICKNESS.sub(" ", _KERNEL.sub(" ", _PUBLISHED.sub(" ", name.replace("_", " ")))))
    plain = not set(rest.split()) - {"images", "image", "dose", "ct", "data"}
    return plain and not _WEAK.fullmatch(_words(name))


def undosed(text: str) -> str:
    """A name without the words that tell the dose, so that the names of twins are equal."""
    words = _words(text)
    for told in (_NOISY, _CLEAN, _LOW, _HIGH):
        words = told.sub("", words)
    return re.sub(r"\s+", " ", words).strip()


def unnumbered(stem: str) -> str:
    """A file's name without dose and the number of the slice, which name nobody.

    Example:
        >>> unnumbered("L067_12_input"), unnumbered("Mueller_quarter_0012"), unnumbered("0012")
        ('L067_12_input', 'mueller', '')
    """
    return stem if _PUBLISHED.search(stem) else re.sub(r"[\W_]*\d+$", "", undosed(stem))


def patient_in(tag: str, names: Sequence[str]) -> tuple[str, bool]:
    """The patient, and whether tag and names contradict each other.

    Arguments:
        tag: Patient ID; "Anonymous" and the like say nothing.
        names: Patient's name, file name and folders, the most telling first.
    """
    ids = list(dict.fromkeys(published for name in names for published in _PUBLISHED.findall(name)))
    said = "" if _NOBODY.fullmatch(tag.strip()) else tag.strip()
    if said:
        return said, any(published != said for published in ids) and bool(_PUBLISHED.fullmatch(said))
    if ids:
        return ids[0], len(ids) > 1
    for name in names:
        rest = _THICKNESS.sub("", _KERNEL.sub("", undosed(name))).strip(" _-.")
        if re.search(r"[a-z]", rest) and not _NOBODY.fullmatch(rest):
            return rest, False
    return "", False


def kernel_in(tag: str, folders: Sequence[str]) -> str:
    """The kernel's tag, else what a folder is called, such as ``B30``."""
    if tag:
        return tag
    return next((match[1] for name in reversed(folders) if (match := _KERNEL.search(name))), "")


def thickness_in(tag: float | None, folders: Sequence[str]) -> float | None:
    """Slice thickness in mm: the tag, else what a folder is called, such as ``1mm``."""
    if tag is not None:
        return tag
    spelled = (name.replace("_", " ") for name in reversed(folders))
    return next((float(match[1]) for name in spelled if (match := _THICKNESS.search(name))), None)
