"""The settings as a JSON schema, for editors and workflows: made from the dataclasses, so that both agree."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from pathopan.config import Config

_TYPES: dict[type, Any] = {bool: "boolean", float: "number", int: "integer", str: ["string", "number"]}
"""YAML reads 0.4 as a number, also where a text such as the version of a format is asked for."""


def settings_schema(settings: Any = None) -> dict[str, Any]:
    """Describe the settings of a run: each field with its type, its default, and the comment behind it.

    Parameters
    ----------
    settings : dataclass instance, optional
        The defaults; without it, those of :class:`pathopan.config.Config`.

    Returns
    -------
    dict
        A JSON schema (draft 2020-12). Values are checked further by :func:`pathopan.config.load_config`.

    Examples
    --------
    >>> settings_schema()["properties"]["scores"]["properties"]["field_um"]
    {'type': 'number', 'default': 500.0, 'description': 'side of the fields for intervals and heterogeneity'}
    """
    settings = Config() if settings is None else settings
    hints, comments = get_type_hints(type(settings)), _comments(type(settings))
    properties = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            properties[field.name] = settings_schema(value)
            continue
        properties[field.name] = {"type": _TYPES[hints[field.name]], "default": value}
        if field.name in comments:
            properties[field.name]["description"] = comments[field.name]
    about = (inspect.getdoc(type(settings)) or "").partition("\n")[0]
    return {"type": "object", "description": about, "additionalProperties": False, "properties": properties}


def _comments(kind: type) -> dict[str, str]:
    """Give the comment behind each field."""
    return dict(re.findall(r"^    (\w+): .*?  # (.+)$", inspect.getsource(kind), flags=re.MULTILINE))
