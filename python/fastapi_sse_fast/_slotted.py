"""The data of a template: where its slots stand, and who writes what fills them.

A template writes a scalar straight into its frame. What any other value becomes depends
on all that stands around it: the configuration of a model, a serializer, FastAPI's
encoder. So it is put into a copy of the data, which is encoded as a whole.
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
"""Fields, keys, indices and attributes that lead from the data to a slot."""

Tree: TypeAlias = dict[Any, Any]
"""All paths of the data; the name of a slot where one ends."""

# FastAPI's encoder goes through these, and writes what it finds without regard to them.
_PLAIN = (dict, list, tuple, OrderedDict, defaultdict, deque)

# Most data is of these types. Whether it is of any other is not asked: that would take
# three times as long as all the rest of looking for slots.
_CONTAINERS = (dict, list, tuple)
_SCALARS = (str, int, float, bool, type(None))

# Of pydantic itself, for `Sequence` and the like: they only choose how to iterate.
_HARMLESS = ("pydantic._internal._serializers", "pydantic._internal._std_types_schema")


class SlottedData:
    """Data that a template is made of.

    Args:
        data: The data, with slots.
        writes_itself: Whether it has a `model_dump_json`, which is called then.

    Raises:
        ValueError: A slot is there twice, or the data cannot be encoded a second time.
    """

    __slots__ = ("data", "is_plain", "slots", "tree")

    data: Any
    """A copy, if it will be needed."""

    is_plain: bool
    """Whether FastAPI's encoder writes the value of each slot alone."""

    slots: dict[str, bool]
    """By name, whether scalars may be written in place, once one was seen to come out
    as it would of the whole."""

    tree: Tree | str

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
                "the data of a template has an iterator, which can be encoded only "
                "once: give it a list"
            )
        # Whoever has made the data may go on with it.
        self.data = _copied(data)
        steps = (step for path in paths.values() for step in path)
        if not all(type(step) in (str, int) for step in steps):
            # A key that was copied can be another.
            paths, _ = _find(self.data, in_model=writes_itself)
        self.slots = {}
        for name, path in paths.items():
            try:
                is_up_to_python = _is_up_to_python(self.data, path, writes_itself)
            except (LookupError, TypeError):
                is_up_to_python = True  # schemas are not as we know them
            self.slots[name] = not is_up_to_python
        self.tree = _tree(paths)

    def filled(self, values: dict[str, Any]) -> Any:
        """The data with these values in place of their slots."""
        return _filled(self.data, self.tree, values.get)

    @staticmethod
    def kept(values: dict[str, Any]) -> dict[str, Any]:
        """Values that can be encoded any number of times, whatever becomes of them.

        Raises:
            ValueError: One can be encoded only once.
        """
        for name, value in values.items():
            _, has_iterator = _find(value, in_model=True)
            if has_iterator:
                raise ValueError(
                    f"slot {name!r}: an iterator can be encoded only once: give it a "
                    "list"
                )
        return {name: _copied(value) for name, value in values.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets a template be pickled: in another process slots look different."""
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
    """The paths to all slots, and whether an iterator was met on the way."""
    paths: dict[str, Path] = {}
    seen: dict[int, Any] = {}  # kept alive, so that no other has the id of one
    has_iterator = False
    # A way is the way before and one more step: data can be a million levels deep.
    waiting: list[tuple[Any, Any, bool]] = [(data, None, in_model)]
    while waiting:
        value, way, in_model = waiting.pop()
        if type(value) not in _CONTAINERS:
            name = slot_name(value)
            if name is not None:
                if name in paths:
                    raise ValueError(f"slot {name!r} is there twice")
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
    """What is encoded of a value, each with the step to it."""
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
        return ()  # only a serializer could write it
    attributes = getattr(value, "__dict__", {})
    # SQLAlchemy's, behind which is all of its session.
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
    """A copy with other children, which are not validated."""
    if isinstance(value, tuple):
        items = (children.get(index, item) for index, item in enumerate(value))
        return tuple.__new__(type(value), items)
    if isinstance(value, BaseModel):
        model = BaseModel.__copy__(value)
        fields, extra = vars(model), model.__pydantic_extra__
        for name in fields.keys() - type(value).model_fields.keys():
            del fields[name]  # a cached property: it may be another now
        for step, child in children.items():
            (fields if extra is None or step not in extra else extra)[step] = child
        return model
    other: Any
    if dataclasses.is_dataclass(value):
        other = object.__new__(type(value))
        # One with slots, and frozen, cannot be copied otherwise.
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
    """A copy in which a slot is what `fill` makes of its name and what stands there."""
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
    """The containers on the way to a slot, each with the next step."""
    for step in path:
        yield data, step
        data = _child(data, step)


def _is_plain(data: Any, path: Path, writes_itself: bool) -> bool:
    return not writes_itself and all(
        type(value) in _PLAIN for value, _ in _values_on(path, data)
    )


def _is_up_to_python(data: Any, path: Path, writes_itself: bool) -> bool:
    """Whether code that is not pydantic's or FastAPI's may look at the slot's value.

    What it makes of one scalar says nothing about the next.
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
    """Whether a method of a model is the one that pydantic's own module defines."""
    function = getattr(getattr(model, method, None), "__func__", None)
    return getattr(function, "__globals__", None) is vars(pydantic.main)


class _Schemas:
    """The parts of pydantic's schemas that may say how a value is serialized."""

    def __init__(self) -> None:
        """Starts where nothing is declared."""
        self._nodes: list[Any] = []
        self._definitions: dict[str, Any] = {}

    def enter(self, value: Any, step: Any) -> bool:
        """Goes from a value to a child, and returns whether no code is on the way."""
        is_model = isinstance(value, BaseModel)
        if is_model or dataclasses.is_dataclass(value):
            own = getattr(type(value), "__pydantic_core_schema__", None)
            if own is not None and not isinstance(own, dict):
                return False  # not built yet
            self._nodes += [own] if own else []
        nodes = self._all()
        if any(map(_has_serializer, nodes)):
            return False
        if not is_model and not dataclasses.is_dataclass(value):
            return True  # the schema of a list has that of its items in it
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
        """Whether a function may have a say in what is written."""
        return any(map(_has_serializer, self._all()))

    def _all(self) -> list[Any]:
        """The nodes and all inside of them, but for the fields of models."""
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
        """The schema of a field, if there is one, of a model without functions."""
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
