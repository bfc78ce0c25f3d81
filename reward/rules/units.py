"""Units of measurement: what a text such as "kg m/s^2" or "km per hour" stands for, in SI.

What is not known here is a unit of its own, so that 3 apples are 3 apples and not 3 pears.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A unit as a factor and dimensions.

    Example:
        Unit(factor=1000 / 3600, dimensions={"m": 1, "s": -1})
    """

    factor: float = 1.0
    """In SI units of the same dimensions."""
    dimensions: Mapping[str, int] = field(default_factory=dict)
    """Base unit -> exponent, never 0; none for a plain number."""
    offset: float = 0.0
    """What zero of the unit is in SI units, before the factor: 273.15 for degrees Celsius."""

    @property
    def is_known(self) -> bool:
        """Whether it is a unit of measurement, and not made of words that are none."""
        return self.dimensions.keys() <= _BASES

    def in_si(self, value: float) -> float:
        """`value` of this unit in SI units."""
        return value * self.factor + self.offset

    def from_si(self, value: float) -> float:
        """The inverse of `in_si`."""
        return (value - self.offset) / self.factor


_BASES = frozenset({"m", "kg", "s", "A", "K", "mol", "cd", "bit", "month", "USD", "EUR", "GBP", "dB"})


def _unit(factor: float = 1.0, offset: float = 0.0, **dimensions: int) -> Unit:
    return Unit(factor=factor, dimensions=dimensions, offset=offset)


_PREFIXES = {
    "Y": 24, "Z": 21, "E": 18, "P": 15, "T": 12, "G": 9, "M": 6, "k": 3, "h": 2, "da": 1, "d": -1, "c": -2, "m": -3,
    "µ": -6, "u": -6, "n": -9, "p": -12, "f": -15, "a": -18,
}  # fmt: skip
_WORD_PREFIXES = {
    "tera": 12, "giga": 9, "mega": 6, "kilo": 3, "hecto": 2, "deci": -1, "centi": -2, "milli": -3, "micro": -6,
    "nano": -9, "pico": -12, "femto": -15,
}  # fmt: skip
_EV = 1.602176634e-19
_SYMBOLS: Mapping[str, Unit] = {
    "m": _unit(m=1), "g": _unit(1e-3, kg=1), "s": _unit(s=1), "A": _unit(A=1), "K": _unit(K=1), "mol": _unit(mol=1),
    "cd": _unit(cd=1), "Hz": _unit(s=-1), "N": _unit(kg=1, m=1, s=-2), "Pa": _unit(kg=1, m=-1, s=-2),
    "J": _unit(kg=1, m=2, s=-2), "W": _unit(kg=1, m=2, s=-3), "C": _unit(A=1, s=1),
    "V": _unit(kg=1, m=2, s=-3, A=-1), "F": _unit(kg=-1, m=-2, s=4, A=2), "Ω": _unit(kg=1, m=2, s=-3, A=-2),
    "ohm": _unit(kg=1, m=2, s=-3, A=-2), "S": _unit(kg=-1, m=-2, s=3, A=2), "Wb": _unit(kg=1, m=2, s=-2, A=-1),
    "T": _unit(kg=1, s=-2, A=-1), "H": _unit(kg=1, m=2, s=-2, A=-2), "Bq": _unit(s=-1), "Gy": _unit(m=2, s=-2),
    "Sv": _unit(m=2, s=-2), "L": _unit(1e-3, m=3), "l": _unit(1e-3, m=3), "eV": _unit(_EV, kg=1, m=2, s=-2),
    "bar": _unit(1e5, kg=1, m=-1, s=-2), "cal": _unit(4.184, kg=1, m=2, s=-2), "Wh": _unit(3600, kg=1, m=2, s=-2),
    "B": _unit(8, bit=1), "bit": _unit(bit=1), "M": _unit(1e3, mol=1, m=-3),
}  # fmt: skip
"""Those that take a prefix."""
_WORDS: Mapping[str, str] = {
    "meter": "m", "metre": "m", "gram": "g", "gramme": "g", "second": "s", "sec": "s", "ampere": "A", "amp": "A",
    "kelvin": "K", "mole": "mol", "hertz": "Hz", "newton": "N", "pascal": "Pa", "joule": "J", "watt": "W",
    "coulomb": "C", "volt": "V", "farad": "F", "ohm": "Ω", "tesla": "T", "weber": "Wb", "henry": "H", "liter": "L",
    "litre": "L", "calorie": "cal", "byte": "B", "electronvolt": "eV",
}  # fmt: skip
"""Words for symbols; they take the prefixes in words, and a plural."""
_DAY, _INCH, _POUND = 86400.0, 0.0254, 0.45359237
_OTHERS: Mapping[str, Unit] = {
    "min": _unit(60, s=1), "minute": _unit(60, s=1), "h": _unit(3600, s=1), "hr": _unit(3600, s=1),
    "hour": _unit(3600, s=1), "day": _unit(_DAY, s=1), "week": _unit(7 * _DAY, s=1), "month": _unit(month=1),
    "year": _unit(365.25 * _DAY, s=1), "yr": _unit(365.25 * _DAY, s=1), "°C": _unit(1.0, 273.15, K=1),
    "celsius": _unit(1.0, 273.15, K=1), "°F": _unit(5 / 9, 459.67 * 5 / 9, K=1),
    "fahrenheit": _unit(5 / 9, 459.67 * 5 / 9, K=1), "°": _unit(math.pi / 180), "degree": _unit(math.pi / 180),
    "deg": _unit(math.pi / 180), "rad": _unit(), "radian": _unit(), "rev": _unit(2 * math.pi),
    "rpm": _unit(2 * math.pi / 60, s=-1), "in": _unit(_INCH, m=1), "inch": _unit(_INCH, m=1),
    "inches": _unit(_INCH, m=1), "ft": _unit(12 * _INCH, m=1), "foot": _unit(12 * _INCH, m=1),
    "feet": _unit(12 * _INCH, m=1), "yd": _unit(36 * _INCH, m=1), "yard": _unit(36 * _INCH, m=1),
    "mi": _unit(1609.344, m=1), "mile": _unit(1609.344, m=1), "mph": _unit(0.44704, m=1, s=-1),
    "kph": _unit(1 / 3.6, m=1, s=-1), "knot": _unit(1852 / 3600, m=1, s=-1), "lb": _unit(_POUND, kg=1),
    "pound": _unit(_POUND, kg=1), "oz": _unit(_POUND / 16, kg=1), "ounce": _unit(_POUND / 16, kg=1),
    "t": _unit(1e3, kg=1), "tonne": _unit(1e3, kg=1), "u": _unit(1.66053906660e-27, kg=1),
    "amu": _unit(1.66053906660e-27, kg=1), "ha": _unit(1e4, m=2), "hectare": _unit(1e4, m=2),
    "acre": _unit(4046.8564224, m=2), "gallon": _unit(3.785411784e-3, m=3), "gal": _unit(3.785411784e-3, m=3),
    "atm": _unit(101325, kg=1, m=-1, s=-2), "mmHg": _unit(133.322387415, kg=1, m=-1, s=-2),
    "torr": _unit(101325 / 760, kg=1, m=-1, s=-2), "psi": _unit(6894.757293168, kg=1, m=-1, s=-2),
    "hp": _unit(745.69987158227, kg=1, m=2, s=-3), "Å": _unit(1e-10, m=1), "angstrom": _unit(1e-10, m=1),
    "%": _unit(1e-2), "percent": _unit(1e-2), "ppm": _unit(1e-6), "‰": _unit(1e-3), "$": _unit(USD=1),
    "USD": _unit(USD=1), "dollar": _unit(USD=1), "cent": _unit(1e-2, USD=1), "€": _unit(EUR=1), "EUR": _unit(EUR=1),
    "euro": _unit(EUR=1), "dB": _unit(dB=1), "Nm": _unit(kg=1, m=2, s=-2), "£": _unit(GBP=1), "GBP": _unit(GBP=1),
    "dozen": _unit(12),
}  # fmt: skip
"""Those that take no prefix. A mean month has no fixed length, so it is a unit of its own."""
_FACTOR = re.compile(
    r"(?P<name>°\s?[CF]\b|degrees?\s+(?:Celsius|Fahrenheit)\b|[^\W\d_]+|[°%‰$€£])"
    r"(?:\^?\{?(?P<power>[-−]?\d)\}?(?![\d.]))?",
    re.IGNORECASE,
)
_JOINT = re.compile(r"\s*(?P<over>/|\bper\b)\s*|\s*[·*⋅.]\s*|\s+")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


def parse_unit(text: str) -> Unit | None:
    """The unit that a text stands for; None for a text that is none. "" is a plain number.

    Behind the first "/" or "per" all stands below the line: J/kg K is J/(kg K).
    """
    text = text.translate(_SUPERSCRIPTS).replace("μ", "µ").replace("Ω", "Ω").strip().strip("()").strip()
    unit, is_below = Unit(), False
    for name, power, over in _factors(text):
        is_below = is_below or over
        found = named_unit(name)
        if found is None:
            return None
        if not unit.dimensions and unit.factor == 1.0 and power == 1 and not is_below and name == text:
            return found
        unit = _times(unit, found, -power if is_below else power)
    return unit if text == "" or _is_whole(text) else None


def _factors(text: str) -> Iterator[tuple[str, int, bool]]:
    """(name, exponent, whether the line is above it); ends where the text is no unit any more."""
    place, over = 0, False
    begins_below = re.match(r"\s*(?:/|per\b)\s*", text)
    if begins_below is not None:
        place, over = begins_below.end(), True
    while place < len(text):
        if text[place] in "()":
            place += 1
            continue
        match = _FACTOR.match(text, place)
        if match is None:
            return
        yield match["name"], int((match["power"] or "1").replace("−", "-")), over
        joint = _JOINT.match(text, match.end())
        place = joint.end() if joint is not None else match.end()
        over = joint is not None and joint["over"] is not None


def _is_whole(text: str) -> bool:
    """Whether nothing but factors and what joins them stands in the text."""
    left = _FACTOR.sub("", re.sub(r"\bper\b", "", text))
    return re.sub(r"[\s/·*⋅.()]", "", left) == ""


def named_unit(name: str) -> Unit | None:
    """The unit of one name, prefix and plural included; a word that is not known is a unit of its own."""
    name = re.sub(r"^°\s?([CF])$", r"°\1", re.sub(r"(?i)^degrees?\s+", "", name))
    if name in _OTHERS:
        return _OTHERS[name]
    if name in _SYMBOLS:
        return _SYMBOLS[name]
    for prefix, exponent in _PREFIXES.items():
        if name.startswith(prefix) and name[len(prefix) :] in _SYMBOLS:
            return _times(Unit(factor=10.0**exponent), _SYMBOLS[name[len(prefix) :]], 1)
    word = name.lower()
    singular = word.removesuffix("s")
    for known in (word, singular):
        if known in _OTHERS:
            return _OTHERS[known]
        for prefix, exponent in {"": 0, **_WORD_PREFIXES}.items():
            if known.startswith(prefix) and known[len(prefix) :] in _WORDS:
                return _times(Unit(factor=10.0**exponent), _SYMBOLS[_WORDS[known[len(prefix) :]]], 1)
    return Unit(dimensions={singular: 1}) if len(word) > 2 and word.isalpha() else None


def _times(one: Unit, other: Unit, power: int) -> Unit:
    dimensions = dict(one.dimensions)
    for name, exponent in other.dimensions.items():
        dimensions[name] = dimensions.get(name, 0) + exponent * power
    return Unit(
        factor=one.factor * other.factor**power,
        dimensions={name: exponent for name, exponent in dimensions.items() if exponent},
    )
