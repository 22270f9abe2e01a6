"""The page at /docs: Swagger UI from the package `swagger_ui_bundle`, without another host."""

from pathlib import Path

import swagger_ui_bundle

_FOLDER = Path(swagger_ui_bundle.swagger_ui_path)
_PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>ml_assets: API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css"><link rel="icon" href="data:,"></head>
<body><div id="ui"></div><script src="/docs/swagger-ui.js"></script>
<script>SwaggerUIBundle({url: "/openapi.json", dom_id: "#ui", deepLinking: true, validatorUrl: null})</script></body></html>
"""


def docs_page() -> bytes:
    """The page itself."""
    return _PAGE


def docs_script() -> bytes:
    """Its script."""
    return (_FOLDER / "swagger-ui-bundle.js").read_bytes()


def docs_style() -> bytes:
    """Its style."""
    return (_FOLDER / "swagger-ui.css").read_bytes()
