"""POST /api/runs/{run}/annotations: the one request that writes, into one file of the run."""

import json
from dataclasses import asdict
from typing import Any

from cluster.dashboard.files.annotations import Annotation, AnnotationError, address_of
from cluster.dashboard.web.params import RequestError, bad, shown
from cluster.dashboard.web.stream import Follower

MAX_BODY_BYTES = 32_768
KEYS = frozenset({"address", "label", "note", "bookmarked"})


def annotate(follower: Follower, name: str, content_type: str, body: bytes) -> dict[str, Any]:
    """Keeps what is noted of a completion and returns it. Raises RequestError."""
    # A form or plain text may be sent by any page; JSON is asked about first, which the Guard refuses.
    if content_type.split(";")[0].strip().lower() != "application/json":
        raise RequestError(415, f"the content type is {shown(content_type)}, allowed: application/json")
    if len(body) > MAX_BODY_BYTES:
        raise RequestError(413, f"the request has more than {MAX_BODY_BYTES} bytes")
    value = _parsed(body)
    try:
        address, sample_index = address_of(value["address"])
        annotation = Annotation(
            label=_text(value, "label"), note=_text(value, "note"), bookmarked=_flag(value, "bookmarked")
        )
        with follower.use(name, rollouts=True) as run:
            assert run.store is not None
            if not any(row.sample_index == sample_index for row in run.store.placed_group(address)):
                raise RequestError(404, "this run has no such completion; a resume may have taken it back")
            run.store.annotations.write(address, sample_index, annotation)
            run.wanted.set()  # the pages that listen are told soon
    except AnnotationError as error:
        raise bad(str(error)) from error
    return asdict(annotation)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise bad("the request is no JSON") from error
    if not isinstance(value, dict) or not value.keys() <= KEYS or not isinstance(value.get("address"), str):
        raise bad(f"the request is no object with an address, allowed keys: {', '.join(sorted(KEYS))}")
    return value


def _text(value: dict[str, Any], name: str) -> str | None:
    """Empty is none. Lone surrogates become escapes, as in the run's own tables."""
    text = value.get(name)
    if text is not None and not isinstance(text, str):
        raise bad(f"{name} is {shown(str(text))}, allowed: text or null")
    return None if not text or not text.strip() else text.strip().encode("utf-8", "backslashreplace").decode()


def _flag(value: dict[str, Any], name: str) -> bool:
    flag = value.get(name, False)
    if not isinstance(flag, bool):
        raise bad(f"{name} is {shown(str(flag))}, allowed: true, false")
    return flag
