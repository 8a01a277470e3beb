"""The page at `/` of the read-only server: static files, and the chart library that a dependency brings.

Nothing is fetched from elsewhere, so it works without internet, and the content security policy holds it to
that. uPlot (MIT) comes from the package uplot-python, of which only its files are used.
"""

import importlib.util
from pathlib import Path
from typing import Final

from aiohttp import web

STATIC: Final = Path(__file__).parent / "static"
SHARED: Final = Path(__file__).parent / "shared"
"""What Cockpit's page has, too: `cockpit/` lies beside it, and Cockpit serves both as one folder."""
OWN: Final = {
    "": (STATIC / "index.html", "text/html"),
    "assets/page.js": (STATIC / "page.js", "text/javascript"),
    "assets/fleet.js": (STATIC / "fleet.js", "text/javascript"),
    "assets/chart.js": (STATIC / "chart.js", "text/javascript"),
    "assets/page.css": (STATIC / "page.css", "text/css"),
    "assets/text.js": (SHARED / "text.js", "text/javascript"),
    "assets/curve.js": (SHARED / "curve.js", "text/javascript"),
    "assets/curve.css": (SHARED / "curve.css", "text/css"),
}
LIBRARY: Final = {
    "assets/uPlot.js": ("uPlot.iife.js", "text/javascript"),
    "assets/uPlot.css": ("uPlot.min.css", "text/css"),
}
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def routes() -> list[web.RouteDef]:
    """A route for each file; those of the library only where it is installed. The files are read once."""
    directory = library()
    files = dict(OWN)
    if directory is not None:
        files |= {path: (directory / name, kind) for path, (name, kind) in LIBRARY.items()}
    return [_route(f"/{path}", file.read_bytes(), kind) for path, (file, kind) in files.items()]


def library() -> Path | None:
    """Where uPlot's files are. The package is found, not imported: it would pull in numpy."""
    found = importlib.util.find_spec("uplot")
    if found is None or not found.submodule_search_locations:
        return None
    directory = Path(found.submodule_search_locations[0]) / "static"
    return directory if all((directory / name).is_file() for name, _ in LIBRARY.values()) else None


def _route(path: str, body: bytes, kind: str) -> web.RouteDef:
    async def give(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=HEADERS)

    return web.get(path, give)
