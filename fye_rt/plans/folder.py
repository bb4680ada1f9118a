"""One TensorRT plan in its folder: written and signed, read and checked.

plan.trt    the serialized engine
plan.json   format and version, key, size and SHA-256 of plan.trt, facts, and the signature: an HMAC-SHA256, with the
            user's secret, of the canonical JSON of all the rest
"""

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fye_rt.errors import OptionError
from fye_rt.plans.files import Content, Unusable, opened_file, write_private
from fye_rt.plans.key import PlanKey, canonical

FORMAT = "fye-plan"
VERSION = 1
PLAN, MANIFEST = "plan.trt", "plan.json"
_MAX_MANIFEST = 4 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A plan that may be run.

    Attributes:
        key: what it was built for.
        content: the serialized engine; these very bytes were checked.
        facts: what its builder noted; `created` is when, in UTC.
    """

    key: PlanKey
    content: bytes
    facts: Mapping[str, Any]


class Unsigned(Unusable):
    """A plan that may be complete, but was not signed by this user."""


def write(folder: Path, secret: bytes, key: PlanKey, content: Content, facts: Mapping[str, Any]) -> None:
    """Fill an empty folder.

    Args:
        folder: in which to write.
        secret: to sign with.
        key: what the plan was built for.
        content: the serialized engine.
        facts: what JSON can hold; `created` is added where it is not among them.

    Raises:
        OptionError: JSON cannot hold the facts.
        OSError: disk or permission.
    """
    view = memoryview(content).cast("B")
    values = {
        "format": FORMAT,
        "version": VERSION,
        "key": key.to_json(),
        "bytes": view.nbytes,
        "sha256": hashlib.sha256(view).hexdigest(),
        "facts": _noted(facts),
    }
    signed = {**values, "signature": _signature(values, secret)}
    write_private(folder / PLAN, view)
    write_private(folder / MANIFEST, (json.dumps(signed, indent=1) + "\n").encode())


def read(folder: int, secret: bytes | None, *, whole: bool = True, mine: bool = True) -> Plan:
    """Read and check a plan.

    Args:
        folder: its descriptor.
        secret: that it must be signed with; None: no signature will do.
        whole: read the content and compare its hash; otherwise it is left empty.
        mine: False for a plan of somebody else's: who owns and signed it makes no difference.

    Raises:
        FileNotFoundError: a file is missing; `filename` says which.
        Unusable: what is wrong; `Unsigned` if it is no more than that.
    """
    with opened_file(MANIFEST, folder, mine=mine) as manifest, opened_file(PLAN, folder, mine=mine) as plan:
        values = _parsed(manifest.read(_MAX_MANIFEST + 1))
        try:
            signature = _signature(values, secret or b"")  # also where it doesn't count: it takes proper JSON
            is_signed = secret is not None and hmac.compare_digest(str(values["signature"]), signature)
            if mine and not is_signed:
                raise Unsigned("it was not built here, or was changed since")
            key, facts = PlanKey.from_json(values["key"]), MappingProxyType(dict(values["facts"]))
            size, sha256 = int(values["bytes"]), str(values["sha256"])
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            raise Unusable(f"{MANIFEST} is damaged ({error!r:.200})") from error
        there = os.fstat(plan.fileno()).st_size
        if there != size:
            raise Unusable(f"{PLAN} has {there} bytes, not {size}")
        content = plan.read() if whole else b""
        if whole and hashlib.sha256(content).hexdigest() != sha256:
            raise Unusable(f"{PLAN} differs from its hash in {MANIFEST}")
        return Plan(key, content, facts)


def _parsed(raw: bytes) -> dict[str, Any]:
    if len(raw) > _MAX_MANIFEST:
        raise Unusable(f"{MANIFEST} is over {_MAX_MANIFEST >> 20} MB")
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{MANIFEST} is not JSON") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise Unusable(f"{MANIFEST} does not describe a {FORMAT}")
    if values.get("version") != VERSION:
        raise Unusable(f"it has format version {values.get('version')!r:.20}, this fye-rt reads {VERSION}")
    return values


def _noted(facts: Mapping[str, Any]) -> Any:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        return json.loads(canonical({"created": created, **facts}))
    except (RecursionError, TypeError, ValueError) as error:
        raise OptionError(f"facts: JSON cannot hold them ({error})") from error


def _signature(values: Mapping[str, Any], secret: bytes) -> str:
    unsigned = {name: value for name, value in values.items() if name != "signature"}
    return hmac.new(secret, canonical(unsigned), "sha256").hexdigest()
