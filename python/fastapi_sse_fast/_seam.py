"""The seam: how a route's generator gets to our response instead of FastAPI's encoder.

FastAPI encodes events in its router, not in the response class. `get_request_handler`
builds the handler of every route; it is wrapped here, and for routes of our class two
of its arguments are replaced: the endpoint becomes an *envelope*, a generator function
that yields the endpoint's own, un-started generator, and the response class becomes a
factory that opens it. For FastAPI that is a raw streaming response. Parameters,
dependencies, status, headers and background tasks remain its own code.

This is the only module that uses what FastAPI does not document. Where a release does
not fit, nothing is wrapped and FastAPI's own implementation streams: slower, never
wrong.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import warnings
from typing import TYPE_CHECKING, Any

import fastapi.routing
import fastapi.sse
from fastapi.datastructures import DefaultPlaceholder
from fastapi.exceptions import ResponseValidationError
from starlette.responses import Response

from ._core import ItemEncoder
from ._request import open_request
from .content import NotAStreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import TypeAlias

    from pydantic_core import ValidationError
    from starlette.requests import Request
    from starlette.types import Scope

    from ._body import EncoderFactory
    from .options import Json
    from .response import EventSourceResponse

    _Handler: TypeAlias = Callable[[Request], Coroutine[Any, Any, Response]]


_ARGUMENTS = frozenset(
    {
        "dependant",
        "is_json_stream",
        "response_class",
        "response_field",
        "response_model_by_alias",
        "response_model_exclude",
        "response_model_exclude_defaults",
        "response_model_exclude_none",
        "response_model_exclude_unset",
        "response_model_include",
        "status_code",
        "stream_item_field",
    }
)
"""Arguments of `get_request_handler` that are read or replaced."""

_SERIALIZER_OPTIONS = {
    "include": None,
    "exclude": None,
    "by_alias": None,
    "exclude_unset": False,
    "exclude_defaults": False,
    "exclude_none": False,
}
"""Those of `SchemaSerializer.to_json` that a route sets, with their defaults."""

_VALIDATOR_OPTIONS = {"from_attributes": True}
"""Those of `SchemaValidator.validate_python`, as FastAPI calls it."""


class _Seam:
    """Whether FastAPI is wrapped, and for which classes."""

    ours: type[EventSourceResponse] | None = None
    installed = False


def take_over(response_class: type[EventSourceResponse]) -> None:
    """Wraps FastAPI's router for routes of `response_class`, if it fits."""
    original = fastapi.routing.get_request_handler
    if not _fits(original):
        warnings.warn(
            f"fastapi_sse_fast does not know FastAPI {fastapi.__version__}: events are "
            "streamed by FastAPI itself, which is slower",
            RuntimeWarning,
            stacklevel=2,
        )
        return

    @functools.wraps(original)
    def get_request_handler(*args: Any, **kwargs: Any) -> Any:
        class_ = _streaming_class(kwargs.get("response_class"))
        if class_ is None or not kwargs.keys() >= _ARGUMENTS:
            return original(*args, **kwargs)
        return _known_while_open(original(*args, **_redirected(class_, kwargs)))

    _Seam.ours = response_class
    fastapi.routing.get_request_handler = get_request_handler


def install() -> None:
    """Streams routes of `fastapi.sse.EventSourceResponse` as well.

    For applications whose imports cannot be changed. Routes that are registered
    afterwards count; calling it again changes nothing. (Routes of an included router
    are registered, by some releases of FastAPI, at their first request.)

    Examples:
        >>> install()  # before the routes are declared
        >>> uninstall()
    """
    _Seam.installed = True


def uninstall() -> None:
    """Undoes `install()` for routes that are registered afterwards."""
    _Seam.installed = False


def _known_while_open(handle: _Handler) -> _Handler:
    """Wraps what opens the dependencies of a request and returns its response."""

    async def handle_known(request: Request) -> Response:
        open_request(request)
        return await handle(request)

    return handle_known


def _fits(get_request_handler: Callable[..., Any]) -> bool:
    parameters = inspect.signature(get_request_handler).parameters
    # Another library's wrapper, as Sentry's is.
    passes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return passes_all or parameters.keys() >= _ARGUMENTS


def _streaming_class(response_class: Any) -> type[EventSourceResponse] | None:
    """Our class for a route's `response_class`, if the route is ours to stream."""
    if isinstance(response_class, DefaultPlaceholder):
        response_class = response_class.value
    if not isinstance(response_class, type) or _Seam.ours is None:
        return None
    if issubclass(response_class, _Seam.ours):
        return response_class
    if _Seam.installed and issubclass(response_class, fastapi.sse.EventSourceResponse):
        return _Seam.ours
    return None


def _redirected(
    response_class: type[EventSourceResponse], kwargs: dict[str, Any]
) -> dict[str, Any]:
    dependant = kwargs["dependant"]
    changes: dict[str, Any] = {}
    if _classified(dependant, "gen") or _classified(dependant, "async_gen"):
        changes["call"] = _envelope(dependant.call)
        factory: Any = _stream_factory(response_class, kwargs)
    else:
        # What dependencies set is on a response that an endpoint gets when it asks.
        name = dependant.response_param_name or _RESPONSE
        model = kwargs["response_field"]
        changes["response_param_name"] = name
        changes["call"] = _returning(
            dependant,
            functools.partial(response_class, status_code=kwargs["status_code"] or 200),
            has_model=model is not None and model.field_info.annotation is not Any,
        )
        factory = Response
    return {
        **kwargs,
        "dependant": dataclasses.replace(dependant, **changes),
        "response_class": factory,
        "is_json_stream": False,
    }


def _classified(dependant: Any, kind: str) -> bool:
    """Whether FastAPI takes an endpoint for a `gen`, `async_gen` or `coroutine`."""
    from fastapi.dependencies import models

    is_kind = getattr(models, f"_is_{kind}_callable", None)
    if is_kind is not None:
        return bool(is_kind(dependant.call))
    return bool(getattr(dependant, f"is_{kind}_callable"))  # of older releases


def _envelope(call: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    """A generator function for FastAPI, whose only item is `call`'s generator."""

    def envelope(**values: Any) -> Iterator[Any]:
        yield call(**values)

    # FastAPI's errors name the endpoint's file and line. Not by `__wrapped__`: FastAPI
    # would look through the envelope then.
    function = inspect.unwrap(call)
    functools.update_wrapper(envelope, function, updated=())
    del envelope.__dict__["__wrapped__"]
    code = getattr(function, "__code__", None)
    if code is not None:
        envelope.__code__ = envelope.__code__.replace(
            co_filename=code.co_filename, co_firstlineno=code.co_firstlineno
        )
    return envelope


_RESPONSE = "_fastapi_sse_fast_response"


def _returning(
    dependant: Any,
    make_response: Callable[..., EventSourceResponse],
    *,
    has_model: bool,
) -> Callable[..., Any]:
    """An endpoint without `yield`, with an iterable that it returns as the stream."""
    call = dependant.call
    asked = dependant.response_param_name

    def call_with(values: dict[str, Any]) -> tuple[Any, Response]:
        response = values[asked] if asked else values.pop(_RESPONSE)
        return call(**values), response

    def respond(result: Any, parameters: Response) -> Response:
        if isinstance(result, Response):
            return result
        try:
            response = make_response(result)
        except NotAStreamError:
            raise TypeError(_not_a_stream(call, result)) from None
        if has_model:
            # Which may be there to keep something from the client.
            raise TypeError(
                f"{_name(call)}() returns its stream, to which no response model "
                "applies: `yield` the items, or set response_model=None"
            )
        # As FastAPI does for what a generator yields.
        response.status_code = parameters.status_code or response.status_code
        response.raw_headers.extend(parameters.raw_headers)
        return response.encode_items_with(_plain_items)

    if _classified(dependant, "coroutine"):

        @functools.wraps(call)
        async def endpoint(**values: Any) -> Response:
            result, parameters = call_with(values)
            return respond(await result, parameters)

        return endpoint

    @functools.wraps(call)
    def sync_endpoint(**values: Any) -> Response:
        return respond(*call_with(values))

    return sync_endpoint


def _not_a_stream(call: Callable[..., Any], result: Any) -> str:
    return (
        f"{_name(call)}() has response_class=EventSourceResponse but returned "
        f"{type(result).__name__!r}: `yield` the events, or return an iterable of them"
    )


def _name(call: Callable[..., Any]) -> str:
    return getattr(call, "__name__", repr(call))


def _stream_factory(
    response_class: type[EventSourceResponse], kwargs: dict[str, Any]
) -> Callable[..., EventSourceResponse]:
    """What FastAPI calls as the response class of a route, with the opened envelope."""
    encoder_for: EncoderFactory
    if kwargs["stream_item_field"] is None:
        encoder_for = _plain_items
    else:
        encoder_for = _TypedItems(kwargs).encoder_for

    def respond(content: Iterator[Any], **response_args: Any) -> EventSourceResponse:
        (generator,) = content
        return response_class(generator, **response_args).encode_items_with(encoder_for)

    return respond


def _plain_items(scope: Scope, json: Json) -> ItemEncoder:
    return ItemEncoder(json=json)


class _TypedItems:
    """The item type of a route: what validates its items and what serializes them."""

    def __init__(self, kwargs: dict[str, Any]) -> None:
        self._adapter = kwargs["stream_item_field"]._type_adapter
        self._dependant = kwargs["dependant"]
        self._options = {
            name: kwargs[f"response_model_{name}"]
            for name, default in _SERIALIZER_OPTIONS.items()
            if kwargs[f"response_model_{name}"] != default
        }

    def encoder_for(self, scope: Scope, json: Json) -> ItemEncoder:
        # Asked for at a request, when forward references can be resolved.
        return ItemEncoder.typed(
            validate=self._adapter.validator.validate_python,
            validate_options=_VALIDATOR_OPTIONS,
            serialize=self._adapter.serializer.to_json,
            serialize_options=self._options,
            invalid=functools.partial(self._invalid, scope),
            valid=self._valid,
            json=json,
        )

    @functools.cached_property
    def _valid(self) -> type | None:
        """The item type, if pydantic takes instances of it as they are.

        It does so for a model, unless it is told to validate it again or a validator
        of the whole model stands around.
        """
        schema = self._adapter.core_schema
        if schema["type"] == "definitions":
            schema = schema["schema"]
        if schema["type"] != "model":
            return None
        for settings in (schema, schema.get("config", {})):
            if settings.get("revalidate_instances", "never") != "never":
                return None
        class_: type = schema["cls"]
        return class_

    def _invalid(self, scope: Scope, item: Any, error: ValidationError) -> Exception:
        endpoint = self._dependant.call
        context = fastapi.routing._extract_endpoint_context(endpoint).copy()
        if self._dependant.path and "method" in scope:
            mount = scope.get("root_path", "").rstrip("/")
            context["path"] = f"{scope['method']} {mount}{self._dependant.path}"
        errors = [
            {**details, "loc": ("response", *details["loc"])}
            for details in error.errors(include_url=False)
        ]
        return ResponseValidationError(errors, body=item, endpoint_ctx=context)
