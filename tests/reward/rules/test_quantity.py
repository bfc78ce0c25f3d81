"""Numbers with units: what a text says, and whether it is the truth's quantity."""

import math

import pytest

from reward.config import RewardConfig
from reward.row_checks import bad_rows
from reward.rules.quantity import answered_quantity, parse_quantity, quantity
from reward.rules.units import parse_unit
from tests.reward.samples import item, prompt


@pytest.mark.parametrize(
    ("text", "factor", "dimensions"),
    [
        ("", 1.0, {}),
        ("km", 1000.0, {"m": 1}),
        ("m/s^2", 1.0, {"m": 1, "s": -2}),
        ("m s^-1", 1.0, {"m": 1, "s": -1}),
        ("m·s⁻²", 1.0, {"m": 1, "s": -2}),
        ("km/h", 1000 / 3600, {"m": 1, "s": -1}),
        ("kilometers per hour", 1000 / 3600, {"m": 1, "s": -1}),
        ("N", 1.0, {"kg": 1, "m": 1, "s": -2}),
        ("kg m/s^2", 1.0, {"kg": 1, "m": 1, "s": -2}),
        ("J/(kg K)", 1.0, {"m": 2, "s": -2, "K": -1}),
        ("J/kg·K", 1.0, {"m": 2, "s": -2, "K": -1}),
        ("kWh", 3.6e6, {"kg": 1, "m": 2, "s": -2}),
        ("cm^3", 1e-6, {"m": 3}),
        ("mL", 1e-6, {"m": 3}),
        ("µm", 1e-6, {"m": 1}),
        ("g/cm3", 1000.0, {"kg": 1, "m": -3}),
        ("%", 0.01, {}),
        ("minutes", 60.0, {"s": 1}),
        ("MeV", 1.602176634e-13, {"kg": 1, "m": 2, "s": -2}),
        ("apples", 1.0, {"apple": 1}),
        ("1/s", None, None),
        ("+", None, None),
    ],
)
def test_units(text: str, factor: float | None, dimensions: dict[str, int] | None) -> None:
    unit = parse_unit(text)
    if factor is None or dimensions is None:
        assert unit is None
        return
    assert unit is not None
    assert unit.factor == pytest.approx(factor, rel=1e-12)
    assert dict(unit.dimensions) == dimensions


def test_degrees_have_a_zero_of_their_own() -> None:
    celsius, fahrenheit = parse_unit("°C"), parse_unit("degrees Fahrenheit")
    assert celsius is not None
    assert fahrenheit is not None
    # 25 C = 298.15 K = 77 F
    assert celsius.in_si(25.0) == pytest.approx(298.15)
    assert fahrenheit.from_si(298.15) == pytest.approx(77.0)
    assert parse_unit("rpm") is not None
    assert (parse_unit("°") or celsius).in_si(180.0) == pytest.approx(math.pi)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("9.81 m/s^2", 9.81, "m/s^2"), ("v = 9.81 m/s", 9.81, "m/s"), ("about 5 kg", 5.0, "kg"), ("-3", -3.0, ""),
        ("−3 °C", -3.0, "°C"), ("1,234.5 J", 1234.5, "J"), ("1e-3 s", 1e-3, "s"), ("1.5 × 10^-3 m", 1.5e-3, "m"),
        (r"1.5 \times 10^{-3}\,\text{m}", 1.5e-3, "m"), ("1.5x10⁻³ m", 1.5e-3, "m"), ("3/4", 0.75, ""),
        (r"\frac{3}{4} m", 0.75, "m"), ("25%", 25.0, "%"), (r"25\%", 25.0, "%"), ("$12.50", 12.5, "$"),
        (r"$5\ \text{N}$", 5.0, "N"), ("18 million dollars", 18e6, "dollars"), ("5 m.", 5.0, "m"), (".5 L", 0.5, "L"),
        ("5 + 7 = 12 m", 12.0, "m"), ("5 m (to the east)", 5.0, "m"), ("12 apples", 12.0, "apples"),
        (r"30^{\circ}", 30.0, "°"), ("x ≈ 3.1", 3.1, ""),
    ],
)  # fmt: skip
def test_quantities(text: str, value: float, unit: str) -> None:
    found = parse_quantity(text)
    assert found is not None
    assert found.value == pytest.approx(value, rel=1e-12)
    assert found.unit == unit


@pytest.mark.parametrize(
    "text", ["", "five", "3 or 4", "3 m and 2 s", "not 18", "twice 18", "1 + 2", "a1", "nan", "inf"]
)
def test_no_quantities(text: str) -> None:
    assert parse_quantity(text) is None


def test_where_it_is_read_from() -> None:
    assert answered_quantity("First 3 m, then 4 s: that is 0.75 m/s in all.") == parse_quantity("0.75 m/s")
    assert answered_quantity("<answer>3 m</answer> or 4 m") == parse_quantity("3 m")
    assert answered_quantity(r"\boxed{3 m or 4 m}") is None
    assert answered_quantity("no idea") is None
    assert answered_quantity("<think>3 m") is None


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("9.81 m/s^2", "9.81 m/s^2", True), ("9.90 m/s^2", "9.81 m/s^2", True), ("9.92 m/s^2", "9.81 m/s^2", False),
        ("981 cm/s^2", "9.81 m/s^2", True), ("9.81", "9.81 m/s^2", True), ("9.81 m/s", "9.81 m/s^2", False),
        ("9.81 N/kg", "9.81 m/s^2", True), ("36 km/h", "10 m/s", True), ("77 °F", "25 °C", True),
        ("298.15 K", "25 °C", True), ("25 C", "25 °C", True), ("26 °C", "25 °C", False), ("20", "20%", True),
        ("0.2", "20%", True), ("20%", "20", True), ("1/5", "20 %", True), ("20 %", "0.2 %", False),
        ("12 apples", "12 apples", True), ("12 pears", "12 apples", False), ("12 pears", "12", True),
        ("12 red apples in a bag", "12 apples", True), ("12", "12 apples", True), ("12 in all", "12 m", True),
        ("5 m s^-1", "5 m/s", True), ("5 m s-1", "5 m/s", True),
        ("$5", "5 dollars", True), ("5 euros", "$5", False), ("500 cents", "$5", True), ("-5 m", "5 m", False),
        ("0 m", "0 m", True), ("1e-9 m", "0 m", False), ("1.6e-19 kg", "9.1e-31 kg", False),
    ],
)  # fmt: skip
def test_right_within_one_percent(answer: str, truth: str, right: bool) -> None:
    assert quantity(item(f"<answer>{answer}</answer>", truth)) == float(right)


def test_tolerances_and_what_becomes_of_units() -> None:
    seen = item("<answer>10.2</answer>", "10 m")
    assert quantity(seen) == 0.0
    assert quantity(seen, relative_tolerance=0.02) == 1.0
    assert quantity(seen, relative_tolerance=0.0, absolute_tolerance=0.2) == 1.0
    assert quantity(seen, relative_tolerance=0.0, absolute_tolerance=0.19) == 0.0
    exact = {"relative_tolerance": 0.0}
    assert quantity(item("10", "10 m"), **exact) == 1.0  # type: ignore[arg-type]
    assert quantity(item("10", "10 m"), unit="required") == 0.0
    assert quantity(item("10 s", "10 m"), unit="ignored") == 1.0
    assert quantity(item("1000 cm", "10", row={"unit": "m"}), unit_column="unit") == 1.0
    assert quantity(item("10 s", "10", row={"unit": "m"}), unit_column="unit").detail == "reads 10 s, which is no m"


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        # What makes 5 another number is no 5.
        (r"\boxed{5!}", "5", False), (r"\boxed{5^2}", "5", False), (r"\boxed{5^2}", "25", True),
        (r"\boxed{5\pi}", "5", False), (r"\boxed{5/x}", "5", False), (r"\boxed{5 + x}", "5", False),
        (r"\boxed{5 squared}", "5", False), (r"\boxed{5^{2x}}", "5", False), (r"\boxed{5^x}", "5", False),
        (r"\boxed{5x}", "5", False), (r"\boxed{5 \cdot x}", "5", False), (r"\boxed{5\pm x}", "5", False),
        (r"\boxed{5 - \pi}", "5", False), (r"\boxed{5/\pi}", "5", False), (r"\boxed{5π}", "5", False),
        (r"\boxed{12_8}", "12", False), (r"\boxed{5\ln x}", "5", False), (r"\boxed{5*(x+y)}", "5", False),
        (r"\boxed{5²}", "52", False), (r"\boxed{5²}", "25", True), (r"\boxed{5^{-1}}", "0.2", True),
        (r"\boxed{2^{10}}", "2", False), (r"\boxed{2^{10}}", "1024", True), (r"\boxed{2^10}", "1024", True),
        (r"\boxed{-2^2}", "-4", True), (r"\boxed{999^{999}}", "5", False), (r"\boxed{0^{-1}}", "5", False),
        # 1e5 Pa
        ("<answer>100000 Pa</answer>", "10^5 Pa", True), ("<answer>10 Pa</answer>", "10^5 Pa", False),
        ("<answer>0.1 MPa</answer>", "10^{5} Pa", True), ("<answer>10⁵ Pa</answer>", "100 kPa", True),
        ("<answer>105 Pa</answer>", "10⁵ Pa", False), ("<answer>10^{-3} m</answer>", "1 mm", True),
        (r"<answer>5\frac{1}{2} in</answer>", "5.5 in", True), ("<answer>5 1/2 in</answer>", "5.5 in", True),
        (r"<answer>5\frac{1}{2}</answer>", "25.5", False), (r"<answer>-\frac{3}{4}</answer>", "-0.75", True),
        # Of a unit.
        ("<answer>9.81 m/s^2</answer>", "9.81 m/s^2", True), (r"\boxed{9.81\ \mathrm{m/s^{2}}}", "9.81 m/s^2", True),
        (r"\boxed{5 m^2}", "5 m^2", True), (r"\boxed{5 m^2}", "5 m", False), (r"\boxed{5/s}", "5 Hz", True),
        (r"\boxed{5 / s}", "5 Hz", True), (r"\boxed{5^\circ C}", "5 °C", True), (r"\boxed{90^\circ}", "90°", True),
        (r"\boxed{1.2\times10^{3} kg}", "1200 kg", True), (r"\boxed{5\,\text{m}\cdot\text{s}^{-1}}", "5 m/s", True),
        (r"\boxed{5\cdot\text{m}}", "5 m", True), (r"\boxed{5\cdot\text{m}}", "5 s", False),
        (r"\boxed{5\,\mu\text{m}}", "5e-6 m", True), (r"\boxed{5\frac{\text{m}}{\text{s}}}", "5 m/s", True),
        (r"\boxed{5\,\text{kg}\cdot\text{m}}", "5 kg m", True), (r"\boxed{5\,\text{k}\Omega}", "5000 Ω", True),
        ("<answer>5*m</answer>", "5 m", True),
        ("<answer>**5 m**</answer>", "5 m", True), ("<answer>5-kg</answer>", "5 kg", True),
        ("<answer>$5/apple</answer>", "$5", True), ("<answer>5 apples!</answer>", "5 apples", True),
        ("<answer>5 N</answer>", "5 N", True), ("<answer>5 per second</answer>", "5 Hz", True),
    ],
)  # fmt: skip
def test_a_formula_that_begins_with_the_number_is_not_the_number(answer: str, truth: str, right: bool) -> None:
    assert quantity(item(answer, truth)) == float(right)


@pytest.mark.parametrize("answer", ["1e999 m", "-1e999 m", "1e400", r"2 \times 10^{999} m", "9" * 400, "5/0 m"])
def test_what_no_float_holds_is_wrong(answer: str) -> None:
    seen = item(f"<answer>{answer}</answer>", "5 m")
    assert quantity(seen) == 0.0
    assert math.isinf(answered_quantity(seen.completion).value)  # type: ignore[union-attr]
    assert quantity(item("<answer>0e999 m</answer>", "0 m")) == 1.0
    assert quantity(item("<answer>5e-999 m</answer>", "0 m")) == 1.0


def test_rows_and_params_that_cannot_be() -> None:
    config = RewardConfig.model_validate({"functions": [{"function": "quantity"}]})
    rows = [prompt("ten"), prompt("10 m"), prompt(None), prompt("3 or 4"), prompt("3 q+"), prompt("1e999 m")]
    assert bad_rows(config, rows) == {
        0: "quantity: the ground truth 'ten' is no number with a unit",
        2: "quantity: it needs a ground truth, and the row has none",
        3: "quantity: the ground truth '3 or 4' is no number with a unit",
        5: "quantity: the ground truth '1e999 m' is no number with a unit",
    }
