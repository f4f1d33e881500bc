"""Validates one file against its model and says in plain words what is wrong. Called by `spec.load`."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vcrecon.spec.findings import At, Findings
from vcrecon.spec.nodes import Node, Path
from vcrecon.spec.text import Text
from vcrecon.spec.values import escaped, shorten

Model = TypeVar("Model", bound=Text)

REPAIRS_MAX = 3
WRONG_MAX = 5000
"""A file with more wrong values than this is another file, or made by a program that is wrong."""


@dataclass(frozen=True, slots=True)
class Checked(Generic[Model]):
    """A file as its model (None: not usable). `complete` is false when something wrong was left out."""

    model: Model | None
    complete: bool


def validate(model: type[Model], file: str, root: Node, findings: Findings) -> Checked[Model]:
    """The file as `model`, as far as it can be used without its wrong keys.

    Each wrong value is reported, then left out and the rest is tried again, so that the checks between
    files still run and everything is told at once.
    """
    data = root.plain()
    left_out: set[Path] = set()
    for attempt in range(REPAIRS_MAX):
        try:
            return Checked(model.model_validate(data), complete=attempt == 0)
        except ValidationError as error:
            if error.error_count() > WRONG_MAX:
                what = f"{error.error_count():,} values are wrong, too many to tell each: is this the right file?"
                findings.error(At(file), what)
                break
            details = error.errors(include_url=False)
        for detail in details:
            if detail["loc"] not in left_out:
                _report(model, file, root, detail, findings)
        for detail in details:
            if detail["type"] != "missing":
                left_out.add(_leave_out(data, detail["loc"]))
    return Checked(None, complete=False)


def _leave_out(data: object, path: Path) -> Path:
    """Remove the innermost key on `path` that exists, and return its path.

    Entries of lists are never removed alone: that would shift the positions of those after them.
    """
    found: tuple[dict[str, object], str, Path] | None = None
    for depth, step in enumerate(path):
        if isinstance(data, dict) and isinstance(step, str):
            if step not in data:
                break
            found = (data, step, path[: depth + 1])
            data = data[step]
        elif isinstance(data, list) and isinstance(step, int):
            if step >= len(data):
                break
            data = data[step]
    if found is None:
        return ()
    mapping, key, reached = found
    del mapping[key]
    return reached


def _report(model: type[Text], file: str, root: Node, detail: ErrorDetails, findings: Findings) -> None:
    path = detail["loc"]
    at = At(file, path)
    kind = detail["type"]
    if kind == "missing":
        findings.error(at, f"the key {path[-1]!r} is missing{_inside(path[:-1])}")
    elif kind == "extra_forbidden":
        known = _keys_at(model, path[:-1])
        word = str(path[-1])
        hint = findings.did_you_mean(word, known) or f"; known are {', '.join(known)}"
        findings.error(at.name(), f"unknown key {word[:60]!r}{_inside(path[:-1])}{hint}")
    else:
        findings.error(at, _words(detail, root.find(path), findings))


def _inside(path: Path) -> str:
    keys = [step for step in path if isinstance(step, str)]
    return f" in {keys[-1][:60]!r}" if keys else ""


def _words(detail: ErrorDetails, node: Node, findings: Findings) -> str:
    kind = detail["type"]
    key = next((step for step in reversed(detail["loc"]) if isinstance(step, str)), "")
    key = escaped(key) if key == key.strip() else shorten(key)  # a blank at an end is seen between quotes
    context = detail.get("ctx", {})
    if kind == "value_error":
        return f"{key}: {context['error']}"
    if kind in {"model_type", "dict_type", "model_attributes_type"}:
        return f"{key or 'the file'}: expected a mapping of keys and values, found {_kind(node)}"
    if kind in {"list_type", "tuple_type"}:
        return f"{key}: expected a list, found {_kind(node)}"
    if kind == "string_type":
        return f"{key}: expected a word or text, found {_kind(node)}"
    if kind in {"int_parsing", "int_type", "int_from_float", "int_parsing_size"}:
        return f"{key}: expected a whole number, found {_kind(node)}"
    if kind in {"float_parsing", "float_type"}:
        return f"{key}: expected a number, found {_kind(node)}"
    if kind == "literal_error":
        choices = str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        hint = findings.did_you_mean(str(node.value), choices) if isinstance(node.value, str) else ""
        return f"{key}: expected {context['expected']}, found {_kind(node)}{hint}"
    message = detail["msg"]
    return f"{key}: {message[0].lower()}{message[1:]}, found {_kind(node)}"


def _kind(node: Node) -> str:
    if node.value is None:
        return "nothing"
    if isinstance(node.value, dict):
        return "a mapping"
    if isinstance(node.value, list):
        return "a list"
    return repr(node.value if len(node.value) <= 60 else node.value[:59] + "…")


def _keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """The keys that are known where `path` leads."""
    here: Any = model
    for step in path:
        here = _step(here, step)
    here = _bare(here)
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def _bare(annotation: Any) -> Any:
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            annotation = next(part for part in get_args(annotation) if part is not type(None))
        else:
            return annotation


def _step(annotation: Any, step: str | int) -> Any:
    annotation = _bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        known = annotation.model_fields.get(str(step))
        return known.annotation if known is not None else None
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        return arguments[1]
    return arguments[0] if arguments else None
