"""The data of a template: where its slots are, and how their values are encoded.

A template writes a scalar directly into its frame. How any other value is encoded
depends on what contains it: the configuration of a model, a serializer, FastAPI's
encoder. Such a value is put into a copy of the data, and the whole copy is encoded.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
from collections import OrderedDict, defaultdict, deque
from typing import TYPE_CHECKING, Any, TypeAlias

import pydantic.main
from pydantic import BaseModel

from . import template
from ._core import slot_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Path: TypeAlias = tuple[Any, ...]
"""The fields, keys, indices and attributes that lead from the data to a slot."""

Tree: TypeAlias = dict[Any, Any]
"""All paths as nested dicts. A path ends with the name of its slot."""

# FastAPI's encoder encodes the items of these containers independently.
_PLAIN = (dict, list, tuple, OrderedDict, defaultdict, deque)

# Most data has these types. Checking them first avoids `isinstance` checks, which would
# take three times as long as the rest of the search.
_CONTAINERS = (dict, list, tuple)
_SCALARS = (str, int, float, bool, type(None))

# The serializers of these modules of pydantic, for `Sequence` and similar types, do not
# change values.
_HARMLESS = ("pydantic._internal._serializers", "pydantic._internal._std_types_schema")


class SlottedData:
    """The data of a template.

    Args:
        data: The data, with slots.
        writes_itself: Whether the data is encoded by its `model_dump_json` method.

    Raises:
        ValueError: A slot is used twice, or the data can be encoded only once.
    """

    __slots__ = ("data", "is_plain", "slots", "tree")

    data: Any
    """The data, or a copy if the template will need one."""

    is_plain: bool
    """Whether FastAPI's encoder encodes the value of each slot independently."""

    slots: dict[str, bool]
    """The slots by name, each with whether scalars may be written directly once one of
    them was encoded in the whole data with the same result."""

    tree: Tree | str
    """The paths to the slots, or the name of the slot if the data is a slot."""

    def __init__(self, data: Any, *, writes_itself: bool) -> None:
        paths, has_iterator = _find(data, in_model=writes_itself)
        self.data, self.slots = data, dict.fromkeys(paths, False)
        self.is_plain = all(
            _is_plain(data, path, writes_itself) for path in paths.values()
        )
        if self.is_plain:
            self.tree = {}
            return
        if has_iterator:
            raise ValueError(
                "the data of a template contains an iterator, which can be encoded "
                "only once: use a list"
            )
        # The application may change its data later.
        self.data = _copied(data)
        steps = (step for path in paths.values() for step in path)
        if not all(type(step) in (str, int) for step in steps):
            # A copied key may not be equal to the original.
            paths, _ = _find(self.data, in_model=writes_itself)
        self.slots = {}
        for name, path in paths.items():
            try:
                may_run_python = _may_run_python(self.data, path, writes_itself)
            except (LookupError, TypeError):
                may_run_python = True  # This release has other schemas.
            self.slots[name] = not may_run_python
        self.tree = _tree(paths)

    def filled(self, values: dict[str, Any]) -> Any:
        """Return the data with values in place of the slots."""
        return _filled(self.data, self.tree, values.get)

    @staticmethod
    def kept(values: dict[str, Any]) -> dict[str, Any]:
        """Return copies of values, so that they can be encoded many times.

        Raises:
            ValueError: A value can be encoded only once.
        """
        for name, value in values.items():
            _, has_iterator = _find(value, in_model=True)
            if has_iterator:
                raise ValueError(
                    f"the value of slot {name!r} contains an iterator, which can be "
                    "encoded only once: use a list"
                )
        return {name: _copied(value) for name, value in values.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        """Support pickling: in another process, slots have other texts."""
        return _restored, (self.data, self.slots, self.tree)


def _restored(data: Any, slots: dict[str, bool], tree: Tree) -> SlottedData:
    def slot(name: str, mark: Any) -> Any:
        return template.Slot(name, type=int if isinstance(mark, int) else str)

    restored: SlottedData = SlottedData.__new__(SlottedData)
    restored.data = _filled(data, tree, slot)
    restored.is_plain, restored.slots, restored.tree = False, slots, tree
    return restored


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:
        return value


def _find(data: Any, *, in_model: bool) -> tuple[dict[str, Path], bool]:
    """Return the paths to all slots, and whether the data contains an iterator."""
    paths: dict[str, Path] = {}
    seen: dict[int, Any] = {}  # Values are kept alive, so that their ids stay unique.
    has_iterator = False
    # Data can be a million levels deep, so a way is a linked list of steps.
    waiting: list[tuple[Any, Any, bool]] = [(data, None, in_model)]
    while waiting:
        value, way, in_model = waiting.pop()
        if type(value) not in _CONTAINERS:
            name = slot_name(value)
            if name is not None:
                if name in paths:
                    raise ValueError(f"slot {name!r} is used twice")
                paths[name] = _path(way)
                continue
            if type(value) in _SCALARS:
                continue
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if type(value) not in _CONTAINERS:
            has_iterator |= hasattr(type(value), "__next__")
            in_model = in_model or isinstance(value, BaseModel)
        for step, child in _children(value, in_model=in_model):
            waiting.append((child, (way, step), in_model))
    return paths, has_iterator


def _path(way: Any) -> Path:
    steps = []
    while way is not None:
        way, step = way
        steps.append(step)
    return tuple(reversed(steps))


def _children(value: Any, *, in_model: bool) -> Iterable[tuple[Any, Any]]:
    """Return the parts of a value that are encoded, each with the step to it."""
    if type(value) is dict:
        return value.items()
    if type(value) in _CONTAINERS:
        return enumerate(value)
    if isinstance(value, (str, int, float, type, enum.Enum)) or value is None:
        return ()
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        own = {step: item for step, item in vars(value).items() if step in fields}
        return (own | (value.__pydantic_extra__ or {})).items()
    if isinstance(value, dict):
        return dict.items(value)
    if isinstance(value, (list, tuple, deque)):
        return enumerate(value)
    if dataclasses.is_dataclass(value):
        names = (field.name for field in dataclasses.fields(value))
        return [(name, getattr(value, name)) for name in names if hasattr(value, name)]
    if in_model:
        return ()  # Only a serializer can encode it.
    attributes = getattr(value, "__dict__", {})
    # Attributes of SQLAlchemy refer to its whole session.
    return [item for item in attributes.items() if not item[0].startswith("_sa")]


def _child(value: Any, step: Any) -> Any:
    if isinstance(value, BaseModel):
        extra = value.__pydantic_extra__
        return vars(value)[step] if extra is None or step not in extra else extra[step]
    if isinstance(value, dict):
        return dict.__getitem__(value, step)
    if isinstance(value, (list, tuple, deque)):
        return value[step]
    return getattr(value, step)


def _with_children(value: Any, children: dict[Any, Any]) -> Any:
    """Return a copy with other children, without validation."""
    if isinstance(value, tuple):
        items = (children.get(index, item) for index, item in enumerate(value))
        return tuple.__new__(type(value), items)
    if isinstance(value, BaseModel):
        model = BaseModel.__copy__(value)
        fields, extra = vars(model), model.__pydantic_extra__
        for name in fields.keys() - type(value).model_fields.keys():
            del fields[name]  # A cached property may have another value now.
        for step, child in children.items():
            (fields if extra is None or step not in extra else extra)[step] = child
        return model
    other: Any
    if dataclasses.is_dataclass(value):
        other = object.__new__(type(value))
        # `copy.copy` cannot copy a frozen dataclass with slots.
        children = dict(_children(value, in_model=False)) | children
        getattr(other, "__dict__", {}).update(getattr(value, "__dict__", {}))
    else:
        other = copy.copy(value)
    for step, child in children.items():
        if isinstance(value, dict):
            dict.__setitem__(other, step, child)
        elif isinstance(value, (list, deque)):
            other[step] = child
        else:
            object.__setattr__(other, step, child)
    return other


def _filled(value: Any, tree: Tree | str, fill: Callable[[str, Any], Any]) -> Any:
    """Return a copy in which each slot is replaced by `fill(name, slot)`."""
    if isinstance(tree, str):
        return fill(tree, value)
    children = {
        step: _filled(_child(value, step), branch, fill)
        for step, branch in tree.items()
    }
    return _with_children(value, children) if children else value


def _tree(paths: dict[str, Path]) -> Tree | str:
    tree: Tree = {}
    for name, path in paths.items():
        if not path:
            return name
        *steps, last = path
        branch = tree
        for step in steps:
            branch = branch.setdefault(step, {})
        branch[last] = name
    return tree


def _values_on(path: Path, data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the containers on the path to a slot, each with the next step."""
    for step in path:
        yield data, step
        data = _child(data, step)


def _is_plain(data: Any, path: Path, writes_itself: bool) -> bool:
    return not writes_itself and all(
        type(value) in _PLAIN for value, _ in _values_on(path, data)
    )


def _may_run_python(data: Any, path: Path, writes_itself: bool) -> bool:
    """Return whether code of the application may see the value of a slot.

    How such code encodes one scalar says nothing about the next one.
    """
    schemas: _Schemas | None = None
    for value, step in _values_on(path, data):
        if schemas is None and (isinstance(value, BaseModel) or writes_itself):
            method = "model_dump_json" if writes_itself else "model_dump"
            if not (_is_own(value, method) and _is_own(value, "__deepcopy__")):
                return True
            schemas = _Schemas()
        if schemas is None:
            if not (type(value) in _PLAIN or dataclasses.is_dataclass(value)):
                return True
        elif not schemas.enter(value, step):
            return True
    return schemas is not None and schemas.has_serializer()


def _is_own(model: Any, method: str) -> bool:
    """Return whether a method of a model is the original one of pydantic."""
    function = getattr(getattr(model, method, None), "__func__", None)
    return getattr(function, "__globals__", None) is vars(pydantic.main)


class _Schemas:
    """The nodes of pydantic's schemas that determine how a value is serialized.

    It follows a path through the data. At its start, no schema is known.
    """

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._definitions: dict[str, Any] = {}

    def enter(self, value: Any, step: Any) -> bool:
        """Follow the path from a value to a child.

        Returns:
            Whether no code of the application is on the way.
        """
        is_model = isinstance(value, BaseModel)
        if is_model or dataclasses.is_dataclass(value):
            own = getattr(type(value), "__pydantic_core_schema__", None)
            if own is not None and not isinstance(own, dict):
                return False  # The schema is not built yet.
            self._nodes += [own] if own else []
        nodes = self._all()
        if any(map(_has_serializer, nodes)):
            return False
        if not is_model and not dataclasses.is_dataclass(value):
            return True  # The schema of a list contains that of its items.
        fields: list[Any] = []
        for node in nodes:
            if node["type"] in ("model", "dataclass"):
                found = self._field(node, step)
                if found is None:
                    return False
                fields += found
        self._nodes = fields
        return bool(fields) or not is_model

    def has_serializer(self) -> bool:
        """Return whether a function may determine how the value is serialized."""
        return any(map(_has_serializer, self._all()))

    def _all(self) -> list[Any]:
        """Return the nodes and all nodes inside, except for the fields of models."""
        found: list[Any] = []
        seen: set[int] = set()
        waiting = list(self._nodes)
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, list):
                waiting += node
                continue
            if not isinstance(node, dict):
                continue
            kind = node.get("type")
            if kind == "definitions":
                for schema in node["definitions"]:
                    self._definitions[schema["ref"]] = schema
                waiting.append(node["schema"])
            elif kind == "definition-ref":
                found.append(node)
                waiting.append(self._definitions[node["schema_ref"]])
            else:
                if isinstance(kind, str):
                    found.append(node)
                if kind not in ("model", "dataclass"):
                    waiting += (
                        child
                        for key, child in node.items()
                        if key not in ("metadata", "serialization", "default")
                    )
        return found

    def _field(self, node: Any, name: str) -> list[Any] | None:
        """Return the schema of a field.

        Returns:
            A list with the schema, an empty list if the field is not declared, or
            `None` if a function may serialize the whole model.
        """
        schema = node["schema"]
        if node.get("root_model"):
            return [schema]
        while schema["type"] not in ("model-fields", "dataclass-args"):
            if "serialization" in schema:
                return None
            if schema["type"] == "definition-ref":
                schema = self._definitions[schema["schema_ref"]]
            elif "schema" in schema:
                schema = schema["schema"]
            else:
                return None
        if schema.get("computed_fields"):
            return None
        fields = schema["fields"]
        if isinstance(fields, dict):
            declared = fields.get(name)
        else:
            declared = next((one for one in fields if one["name"] == name), None)
        return [declared] if declared else []


def _has_serializer(node: Any) -> bool:
    if "serialization_exclude_if" in node or node.get("computed_fields"):
        return True
    how = node.get("serialization")
    if how is None:
        return False
    module = getattr(how.get("function"), "__module__", None)
    return module not in _HARMLESS
