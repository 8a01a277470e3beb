"""What every answer has in common, and the answers that any request can get."""

import msgspec


class View(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What all answers have in common: trees without cycles, so no collector looks at their thousands."""


class Problem(View, frozen=True, kw_only=True, gc=False):
    """Why a request was not carried out. Nothing has changed."""

    code: str
    message: str
    hint: str | None = None


class ApiView(View, frozen=True, kw_only=True, gc=False):
    """Whom one speaks with. `GET /v1`."""

    api: int
    """1: fields are added, never removed or given another meaning."""
    version: str
    """The controller's version."""


class DoneView(View, frozen=True, kw_only=True, gc=False):
    """A request was carried out."""

    done: str
