"""What goes wrong with a bucket, in one sentence each, against a real S3 server."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from buckets import KEY, SECRET
from headstart.errors import HeadstartError, MissingExtraError
from headstart.storage import bucket
from headstart.storage.bucket import DeniedError, GoneError, NotReachedError, explained, location

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


def test_no_such_bucket(s3: Any) -> None:
    with pytest.raises(GoneError, match="no such bucket"):
        list(bucket.entries(location("s3://nobody-has-this/a")))
    assert not bucket.is_there(location("s3://nobody-has-this"))
    assert bucket.is_there(location("s3://photos/nothing"))


def test_no_keys(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(NotReachedError, match="no keys were found"):
        list(bucket.entries(location("s3://photos")))


def test_nobody_answers(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:hidden@127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(NotReachedError, match="does not answer") as caught:
        list(bucket.entries(location("s3://photos")))
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_permission_denied() -> None:
    address = location("s3://photos/1.png")
    assert isinstance(explained(address, PermissionError("Access Denied")), DeniedError)
    assert isinstance(explained(location("gs://photos/1.png"), OSError("Forbidden: https://host/o?key=1")), DeniedError)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gcsfs" else find(name))
    with pytest.raises(MissingExtraError, match=r"gcsfs.*headstart\[cloud\]"):
        bucket.stat(location("gs://photos/1.png"))


def test_errors_never_hold_a_key(s3: Any) -> None:
    with pytest.raises(HeadstartError) as caught:
        bucket.read(location("s3://photos/missing"))
    assert KEY not in str(caught.value)
    assert SECRET not in str(caught.value)
