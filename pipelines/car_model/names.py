"""Names of cars: which part is the make, which the model, and which says nothing of either.

"Audi TT 2.0" and "Audi TT TDI" are one model (seed 003): engines, drives and gearboxes are left
out. The first word after the make always stays, whatever it looks like: Audi V8, Fiat 500,
Peugeot 2008.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

_SPELLINGS = (
    "Abarth", "AC", "Acura", "Alfa Romeo", "Alpina", "Alpine", "AM General", "Aston Martin", "Audi",
    "Austin", "Austin Healey", "Bentley", "BMW", "Bugatti", "Buick", "BYD", "Cadillac", "Chevrolet",
    "Chrysler", "Citroen", "Cupra", "Dacia", "Daewoo", "Daihatsu", "DeLorean", "De Tomaso", "Dodge",
    "DS", "Eagle", "Ferrari", "FIAT", "Fisker", "Ford", "Genesis", "Geo", "GMC", "Great Wall",
    "Holden", "Honda", "HUMMER", "Hyundai", "Infiniti", "Isuzu", "Jaguar", "Jeep", "Kia",
    "Koenigsegg", "KTM", "Lada", "Lamborghini", "Lancia", "Land Rover", "Lexus", "Lincoln", "Lotus",
    "Lucid", "Lynk & Co", "Maserati", "Maybach", "Mazda", "McLaren", "Mercedes-AMG",
    "Mercedes-Benz", "MG", "MINI", "Mitsubishi", "Morgan", "NIO", "Nissan", "Oldsmobile", "Opel",
    "Pagani", "Peugeot", "Plymouth", "Polestar", "Pontiac", "Porsche", "Ram", "Renault", "Rivian",
    "Rolls-Royce", "Rover", "Saab", "Saturn", "Scion", "SEAT", "Skoda", "smart", "Spyker",
    "SsangYong", "Subaru", "Suzuki", "Tesla", "Toyota", "TVR", "UAZ", "Vauxhall", "Volkswagen",
    "Volvo", "Wiesmann", "XPeng",
)  # fmt: skip

_NICKNAMES = {
    "alfa": "Alfa Romeo", "astonmartin": "Aston Martin", "chevy": "Chevrolet",
    "landrover": "Land Rover", "mercedes": "Mercedes-Benz", "range rover": "Land Rover Range Rover",
    "rollsroyce": "Rolls-Royce", "vw": "Volkswagen",
}  # fmt: skip
"""What else a make is called, to the words that stand for it."""

_MAKES = {spelling.lower().replace("-", " "): spelling for spelling in _SPELLINGS}
_MOST_MAKE_WORDS = 3


def _lexicon(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


_BODIES = _lexicon(
    "cab cabrio cabriolet convertible conv conv. coupe estate fastback hatchback hatch kombi",
    "landaulet liftback limousine minivan mpv pickup roadster saloon sedan spider spyder supercab",
    "suv targa van wagon",
)
_BEFORE_CAB = _lexicon("access club crew double extended king mega quad regular single")
_BEFORE_VAN = _lexicon("cargo panel passenger")

_UNITS = _lexicon("hp bhp ps pk ch cv kw cc ccm litre litres liter liters ltr")
_ENGINES = _lexicon(
    "tdi tsi tfsi fsi sdi tgi hdi bluehdi cdi crdi crd cdti dci jtd jtdm tdci tddi d4d d-4d gdi",
    "tgdi t-gdi mpi ecoboost ecoblue bluetec bluemotion skyactiv puretech multijet multiair vtec",
    "i-vtec vvt vvt-i vvti turbodiesel biturbo diesel petrol benzin",
)
_DRIVES = _lexicon("quattro 4x4 4x2 4wd 2wd awd fwd rwd 4matic 4motion xdrive sdrive")
_GEARBOXES = _lexicon("automatic manual dsg cvt tiptronic s-tronic stronic steptronic")
_TRIMS = _ENGINES | _DRIVES | _GEARBOXES
_TRIM = re.compile(
    r"""
    \d[.]\d-?[a-z]{0,6}              # displacement: 2.0, 1.9tdi, 2.0t
    | [vwi](?:[234568]|1[0268])      # cylinders: v6, w12, i4
    | (?:8|12|16|20|24|32|48)v       # valves
    | \d{2,4}(?:hp|bhp|ps|pk|ch|cv|kw|cc|ccm)
    | [4-9]-?speed
    """,
    re.VERBOSE | re.ASCII,
)
_FOUR_BY_FOUR = re.compile("\\b4\\s*[xX\N{MULTIPLICATION SIGN}]\\s*4\\b")
_NUMBER = re.compile(r"\d+(?:[.]\d+)?", re.ASCII)
_YEAR = re.compile(r"(?:19|20)\d\d", re.ASCII)

_SHORT_WORDS = _lexicon(
    "ace ami and cab car fe fit fox ion jog ka kid leo neo ram rio ron sol up van zoe"
)
"""Words of up to three letters that are no abbreviations."""


@dataclass(frozen=True, slots=True)
class CarName:
    """A name in its parts; `model` is empty if the name is but a make."""

    make: str
    model: str
    year: int | None = None

    def __str__(self) -> str:
        year = "" if self.year is None else str(self.year)
        return " ".join(part for part in (self.make, self.model, year) if part)


def split_name(name: str, *, keep_body: bool = True) -> CarName:
    """A name in its parts, spelt in one way whatever its case, accents and spaces.

    Engines, drives and gearboxes are left out, and body styles (Coupe, Crew Cab) unless
    `keep_body`. The year is the last number from 1900 to 2099 after the model's first word, or
    before the make. Makes of several words are known by name; of others the first word is the make.

    Raises:
        ValueError: if there is nothing in it.
    """
    words = _words(name)
    if not words:
        raise ValueError(f"expected the name of a car, got {name!r}")
    year = None
    while True:
        parts = _split(words, keep_body=keep_body)
        year = parts.year if year is None else year
        # Again: what was left out may have brought words together that mean something else now.
        again = _words(f"{parts.make} {parts.model}")
        if again == words:
            return CarName(parts.make, parts.model, year)
        words = again


def normalize(name: str, *, keep_body: bool = True, keep_year: bool = False) -> str:
    """The name of the class that a car's name belongs to: "Audi TT TDI" to "Audi TT".

    Raises:
        ValueError: if there is nothing in it.
    """
    parts = split_name(name, keep_body=keep_body)
    return str(parts) if keep_year else str(CarName(parts.make, parts.model))


def _words(name: str) -> list[str]:
    """The words of a name, without accents, brackets and control characters."""
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name))
    plain = "".join(
        " " if unicodedata.category(c)[0] in "CZ" else c
        for c in letters
        if unicodedata.category(c) != "Mn"
    )
    plain = re.sub(r"(?<=\d),(?=\d)", ".", plain)
    plain = re.sub(r"[][(){}<>,;:_\"]", " ", plain)
    return _FOUR_BY_FOUR.sub("4x4", plain).split()


def _split(words: list[str], *, keep_body: bool) -> CarName:
    """One pass over the words of a name, of which there is at least one."""
    years: list[int] = []
    while len(words) > 1 and _YEAR.fullmatch(words[0]):
        years.append(int(words[0]))
        words = words[1:]
    make, rest = _take_make(words)
    kept: list[str] = []
    for word in rest[:1] + list(_telling(rest[1:], keep_body=keep_body)):
        if kept and _YEAR.fullmatch(word):
            years.append(int(word))
        else:
            kept.append(_spell(word))
    return CarName(make, " ".join(kept), years[-1] if years else None)


def _take_make(words: list[str]) -> tuple[str, list[str]]:
    """The make, and the words after it."""
    for count in range(_MOST_MAKE_WORDS, 0, -1):
        key = " ".join(words[:count]).lower().replace("-", " ")
        if key in _NICKNAMES:
            return _take_make(_NICKNAMES[key].split() + words[count:])
        if key in _MAKES:
            return _MAKES[key], words[count:]
    return _spell(words[0]), words[1:]


def _telling(words: list[str], *, keep_body: bool) -> Iterator[str]:
    """The words that tell models apart; all but the model's first."""
    left = iter(zip_longest(words, words[1:], fillvalue=""))
    for word, following in left:
        low, after = word.lower(), following.lower()
        if after in _UNITS and _NUMBER.fullmatch(low):
            next(left)  # the unit
        elif not (low in _TRIMS or _TRIM.fullmatch(low)) and (
            keep_body or not _is_body(low, after)
        ):
            yield word


def _is_body(word: str, after: str) -> bool:
    return (
        word in _BODIES
        or (word in _BEFORE_CAB and after == "cab")
        or (word in _BEFORE_VAN and after in ("van", "minivan"))
    )


def _spell(word: str) -> str:
    """A word spelt in one way: "tt" to "TT", "GOLF" to "Golf", "4runner" to "4Runner"."""
    return re.sub(r"[^\W\d_]+", _spell_letters, word)


def _spell_letters(letters: re.Match[str]) -> str:
    run = letters[0]
    short = len(run) <= 3 and run.lower() not in _SHORT_WORDS
    return run.upper() if short else run.capitalize()
