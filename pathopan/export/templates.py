"""Fill the pages' templates: every value is escaped, and a page's rules let its own script run and no other."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import jinja2

_HASH_GOES_HERE = "hash-of-the-script"


def fill_page(template: str, **values: Any) -> str:
    """Fill a template that extends ``page.html.jinja``.

    Parameters
    ----------
    template : str
        Its file's name in this folder.
    **values
        What it names; a name without a value is an error.

    Returns
    -------
    str
        HTML whose Content-Security-Policy names the hash of the page's one script: whatever text comes into the page
        by a slide's name, nothing else runs, and nothing is loaded.
    """
    page = _template(template).render(**values, script_hash=_HASH_GOES_HERE)
    script = page[page.rindex("<script>") + len("<script>") : page.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return page.replace(_HASH_GOES_HERE, f"sha256-{digest}", 1)


def _template(name: str) -> jinja2.Template:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("pathopan.export", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)
