from __future__ import annotations

from pathlib import Path

import pytest

from headstart.errors import DataError
from headstart.storage.bucket import Address, location, redacted


def test_an_address_is_told_from_a_path() -> None:
    assert location("s3://photos/a/b.csv") == Address("s3", "photos", "a/b.csv")
    assert location("GS://photos/") == Address("gs", "photos")
    assert location("photos/a") == Path("photos/a")
    assert location("C:\\photos") == Path("C:\\photos")
    assert location(Path("a")) == Path("a")


def test_parts_of_an_address() -> None:
    address = location("s3://photos/a/b.csv")
    assert (address.name, address.stem, address.suffix) == ("b.csv", "b", ".csv")
    assert str(address.parent / "c") == str(address.with_name("c")) == "s3://photos/a/c"
    assert str(Address("s3", "photos") / "c") == "s3://photos/c"
    assert Address("s3", "photos").name == "photos"


@pytest.mark.parametrize(
    "text",
    [
        "s3://me:hidden@photos/a", "s3://hidden@photos", "s3://photos/a?X-Amz-Signature=hidden", "s3://me:hidden/a",
        "https://me:hidden@host/a", "https://host/a?key=hidden",
    ],
)  # fmt: skip
def test_an_address_with_a_secret_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(DataError, match="refused") as caught:
        location(text)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"), [("ftp://photos/a", "not supported"), ("s3:///a", "no bucket"), ("s3://", "no bucket")]
)
def test_what_is_no_address_is_said(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        location(text)


def test_urls_of_others_are_redacted() -> None:
    said = redacted('Could not connect: "http://me:hidden@host:1/a?X-Amz-Signature=hidden&b=1" now')
    assert "hidden" not in said
    assert "http://host:1/a" in said
    assert said.endswith(" now")
