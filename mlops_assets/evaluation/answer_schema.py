"""Checks the JSON Schema that a suite asks of an answer, before anything is measured by it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Lookup = Callable[[str], Any]
"""What a reference points at. Raises ValueError when it points at nothing."""


def checked_schema(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    """``schema`` itself. Raises ValueError when it is none, or points outside itself."""
    if schema is None:
        return None
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"it is no JSON Schema ({error.message})") from error
    if any(not target.startswith("#") for target in _references(schema)):
        raise ValueError("a $ref must point into the schema itself")
    lookup = _resolver(schema)
    for target in _references(schema):
        _refuse_endless(lookup(target), lookup, ())
    return schema


def _resolver(schema: dict[str, Any]) -> Lookup:
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    whole = Registry().with_resource("", DRAFT202012.create_resource(schema)).resolver()

    def lookup(target: str) -> Any:
        try:
            return whole.lookup(target).contents
        except Unresolvable as error:
            raise ValueError(f"the $ref {target!r} points at nothing") from error

    return lookup


def _refuse_endless(schema: Any, lookup: Lookup, above: tuple[int, ...]) -> None:
    """A schema that asks for itself of the same value would never come to an end."""
    if not isinstance(schema, Mapping):
        return
    if id(schema) in above:
        raise ValueError("a $ref leads back to itself without end")
    for inner in _in_place(schema, lookup):
        _refuse_endless(inner, lookup, (*above, id(schema)))


def _in_place(schema: Mapping[str, Any], lookup: Lookup) -> Iterator[Any]:
    """The schemas that the same value has to meet, in the words of JSON Schema."""
    for name in ("$ref", "$dynamicRef"):
        if name in schema:
            yield lookup(str(schema[name]))
    for name in ("allOf", "anyOf", "oneOf"):
        yield from schema.get(name, ())
    yield from (schema[name] for name in ("not", "if", "then", "else") if name in schema)
    yield from schema.get("dependentSchemas", {}).values()


def _references(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in ("$ref", "$dynamicRef"):
                yield str(inner)
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
