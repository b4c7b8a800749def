"""Names of cars: makes, models, and what says nothing of either."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.car_model.names import CarName, normalize, split_name

STANFORD = (
    "AM General Hummer SUV 2000", "Aston Martin V8 Vantage Coupe 2012", "Audi 100 Sedan 1994",
    "Audi 100 Wagon 1994", "Audi TT Hatchback 2011", "Audi TT RS Coupe 2012", "Audi V8 Sedan 1994",
    "BMW 1 Series Coupe 2012", "Bugatti Veyron 16.4 Coupe 2009", "Chrysler 300 SRT-8 2010",
    "Chevrolet Silverado 1500 Extended Cab 2012", "Chevrolet Silverado 1500 Regular Cab 2012",
    "FIAT 500 Convertible 2012", "HUMMER H3T Crew Cab 2010", "Land Rover Range Rover SUV 2012",
    "MINI Cooper Roadster Convertible 2012", "McLaren MP4-12C Coupe 2012",
    "Mercedes-Benz SL-Class Coupe 2009", "Ram C/V Cargo Van Minivan 2012",
    "Rolls-Royce Phantom Drophead Coupe Convertible 2012", "Toyota 4Runner SUV 2012",
    "Volkswagen Golf Hatchback 1991", "Volkswagen Golf Hatchback 2012", "Volvo 240 Sedan 1993",
)  # fmt: skip

PIECES = (
    "Audi", "TT", "2.0", "2,0", "TDI", "V6", "V8", "quattro", "4x4", "4 x 4", "150", "hp", "110kW",
    "2012", "1991", "Coupe", "Crew", "Cab", "Cargo", "Van", "Aston", "Martin", "Land", "Rover",
    "range", "vw", "Mercedes", "Benz", "AMG", "500", "-", "(8J)", "1.9tdi", "É", "  ", "\t", "km/h",
)  # fmt: skip
names = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), min_size=1, max_size=8).map(
    " ".join
)


@pytest.mark.parametrize(
    "name",
    [
        "Audi TT", "Audi TT 2.0", "Audi TT TDI", "audi tt", "AUDI  TT\t2,0 TDI quattro",
        "Audi TT 2.0TFSI 200 hp", "Audi TT V6 4x4 (147 kW)", "Audi TT 150PS DSG", "Audi_TT_1.8T",
        "Audi TT 2012", "2012 Audi TT", "Audi TT 3.2 V6 quattro 2012",
        "\uff21\uff35\uff24\uff29 \uff34\uff34",
        "Audi TT 150 V6 hp", "Audi TT 1781 ccm 20V", "Audi\u00a0TT\u200b 6-speed",
    ],
)  # fmt: skip
def test_one_model_has_one_name(name: str) -> None:
    assert normalize(name) == "Audi TT"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("Audi TT 2.0", CarName("Audi", "TT")),
        ("Aston Martin V8 Vantage Coupe 2012", CarName("Aston Martin", "V8 Vantage Coupe", 2012)),
        ("AM General Hummer SUV 2000", CarName("AM General", "Hummer SUV", 2000)),
        ("Land-Rover Defender 4 x 4", CarName("Land Rover", "Defender")),
        ("Range Rover Sport 3.0 TDI", CarName("Land Rover", "Range Rover Sport")),
        ("rolls royce ghost", CarName("Rolls-Royce", "Ghost")),
        ("Mercedes C-Class 220 CDI", CarName("Mercedes-Benz", "C-Class 220")),
        ("mercedes benz sl-class", CarName("Mercedes-Benz", "SL-Class")),
        ("alfa romeo 147 1.6", CarName("Alfa Romeo", "147")),
        ("VW Golf 1.9TDI 105 hp", CarName("Volkswagen", "Golf")),
        ("ŠKODA Octavia", CarName("Skoda", "Octavia")),
        ("Renault Mégane", CarName("Renault", "Megane")),
        ("smart fortwo", CarName("smart", "Fortwo")),
        ("Wartburg 353", CarName("Wartburg", "353")),
        ("Trabant", CarName("Trabant", "")),
    ],
)
def test_makes_of_several_words_and_other_spellings(name: str, parts: CarName) -> None:
    assert split_name(name) == parts


@pytest.mark.parametrize(
    ("name", "model", "year"),
    [
        ("Audi V8 Sedan 1994", "V8 Sedan", 1994),
        ("Audi V8 4.2 V8", "V8", None),
        ("Peugeot 2008", "2008", None),
        ("Peugeot 2008 1.2 2015", "2008", 2015),
        ("Fiat 500 1.2 69 hp", "500", None),
        ("BMW 2002 1972", "2002", 1972),
        ("Bugatti Veyron 16.4 Coupe 2009", "Veyron 16.4 Coupe", 2009),
        ("Ford F-150 Crew Cab 2007", "F-150 Crew Cab", 2007),
        ("Audi TT 1899", "TT 1899", None),
        ("2011 Audi TT 2012", "TT", 2012),
    ],
)
def test_the_first_word_of_a_model_stays_whatever_it_looks_like(
    name: str, model: str, year: int | None
) -> None:
    parts = split_name(name)
    assert (parts.model, parts.year) == (model, year)


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("Audi TT RS Coupe 2012", "Audi TT RS"),
        ("Chevrolet Silverado 1500 Extended Cab 2012", "Chevrolet Silverado 1500"),
        ("Ram C/V Cargo Van Minivan 2012", "Ram C/V"),
        ("MINI Cooper Roadster Convertible 2012", "MINI Cooper"),
        ("Tesla Roadster 2008", "Tesla Roadster"),
        ("Dodge Dakota Club Cab 2007", "Dodge Dakota"),
        ("Lincoln Town Car Sedan 2011", "Lincoln Town Car"),
    ],
)
def test_body_styles_go_if_they_are_told_to(name: str, without: str) -> None:
    assert normalize(name, keep_body=False) == without
    assert normalize(name) != without or name.startswith("Tesla")


def test_the_classes_of_stanford_cars_stay_apart_and_keep_their_years() -> None:
    assert len({normalize(name, keep_year=True) for name in STANFORD}) == len(STANFORD)
    for name in STANFORD:
        assert str(split_name(name)) == name
    assert normalize(STANFORD[-2]) == normalize(STANFORD[-3])


@pytest.mark.parametrize("name", ["", "  ", "\u200b", "()", "\u0301"])
def test_nothing_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="name of a car"):
        split_name(name)


@given(names, st.booleans(), st.booleans())
def test_a_normal_name_is_normal(name: str, keep_body: bool, keep_year: bool) -> None:
    options = {"keep_body": keep_body, "keep_year": keep_year}
    try:
        once = normalize(name, **options)
    except ValueError:
        return
    assert normalize(once, **options) == once
    assert once == " ".join(once.split()) != ""


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6), st.sampled_from([" ", "\t \n"]))
def test_case_and_spaces_do_not_matter(pieces: list[str], gap: str) -> None:
    name = "Opel Astra " + " ".join(pieces)
    assert normalize(name.upper()) == normalize(name.lower()) == normalize(name.replace(" ", gap))


def test_models_that_differ_stay_apart() -> None:
    different = ["Audi TT", "Audi TTS", "Audi TT RS", "Audi S4", "Audi A4", "BMW M3", "Fiat 500L"]
    assert len({normalize(name) for name in different}) == len(different)
