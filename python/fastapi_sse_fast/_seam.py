"""The seam with FastAPI: makes its router pass the generator to our response.

FastAPI encodes events in its router, not in the response class. Its function
`get_request_handler` builds the handler of every route. This module wraps it, and
replaces two of its arguments for routes of our class:

* The endpoint becomes an *envelope*: a generator function that yields what the endpoint
  returns, such as its generator, which has not been started.
* The response class becomes a factory that opens the envelope.

To FastAPI, this is a streaming response like any other. It still handles parameters,
dependencies, the status, headers and background tasks.

This is the only module that relies on undocumented parts of FastAPI. Before the first
route of our class is built, `_probe.py` tries everything on throwaway routes. If that
fails, nothing is replaced, and FastAPI's own implementation streams: more slowly, but
correctly.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import threading
import warnings
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

import fastapi.encoders
import fastapi.routing
import fastapi.sse
from fastapi.exceptions import ResponseValidationError
from pydantic_core import SchemaValidator
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from . import _fallback
from ._core import EncodedEvent, ItemEncoder
from ._request import open_request
from .content import NotAStreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import TypeAlias

    from pydantic_core import ValidationError
    from starlette.requests import Request
    from starlette.types import Scope

    from ._body import EncoderFactory
    from ._probe import Probe
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
"""The arguments of `get_request_handler` that are read or replaced."""

_SERIALIZER_OPTIONS = {
    "include": None,
    "exclude": None,
    "by_alias": None,
    "exclude_unset": False,
    "exclude_defaults": False,
    "exclude_none": False,
}
"""The arguments of `SchemaSerializer.to_json` that a route can set, with defaults."""

_VALIDATOR_OPTIONS = {"from_attributes": True}
"""The arguments with which FastAPI calls `SchemaValidator.validate_python`."""


class _Seam:
    """The state of the seam: whether FastAPI is wrapped, and for which classes."""

    ours: type[EventSourceResponse] | None = None
    installed = False

    supported: bool | None = None
    """Whether the wrapper works. Unknown before the first route of our class."""

    lock = threading.RLock()
    probing = False

    redirected = 0
    """How many routes have been redirected."""

    probe: Probe | None = None
    """The probe. It is kept because FastAPI caches data of endpoints by their `id()`,
    which another endpoint could get if the probe's were freed."""


def take_over(response_class: type[EventSourceResponse]) -> None:
    """Wrap FastAPI's router for routes of `response_class`, if that is supported."""
    original: Any = getattr(fastapi.routing, "get_request_handler", None)
    try:
        _check_signature(original)
        _check_that_routes_call_it()
    except Exception as error:
        _fall_back(error)
        return

    @functools.wraps(original)
    def get_request_handler(*args: Any, **kwargs: Any) -> Any:
        class_ = _streaming_class(kwargs.get("response_class"))
        if class_ is None or not _is_supported(response_class):
            return original(*args, **kwargs)
        if missing := _ARGUMENTS - kwargs.keys():
            error = TypeError(
                f"get_request_handler was called without {min(missing)!r}"
            )
            if _Seam.probing:
                raise error
            _fall_back(error)
            return original(*args, **kwargs)
        return _with_open_request(original(*args, **_redirected(class_, kwargs)))

    _Seam.ours = response_class
    fastapi.routing.get_request_handler = get_request_handler


def _reject_events_with(reject_event: Callable[[EncodedEvent], Any]) -> None:
    """Make `jsonable_encoder` call a function for an event, which it cannot encode."""
    # Another release of FastAPI may not have this attribute.
    with contextlib.suppress(AttributeError):
        fastapi.encoders.ENCODERS_BY_TYPE[EncodedEvent] = reject_event


# If a route has another response class, FastAPI and pydantic try to encode the event.
# Their own errors would not say what to do.
EncodedEvent.__pydantic_serializer__ = _fallback.REJECTING_SERIALIZER  # type: ignore[attr-defined]
_reject_events_with(_fallback.reject_event)


def install() -> None:
    """Stream routes of `fastapi.sse.EventSourceResponse` with this package as well.

    Use it for applications whose imports you cannot change. It affects routes that are
    registered afterwards. Calling it again changes nothing. Some releases of FastAPI
    register the routes of an included router only at their first request.

    Examples:
        >>> install()  # before the routes are registered
        >>> uninstall()
    """
    _Seam.installed = True


def uninstall() -> None:
    """Undo `install()` for routes that are registered afterwards."""
    _Seam.installed = False


def _check_signature(get_request_handler: Callable[..., Any]) -> None:
    parameters = inspect.signature(get_request_handler).parameters
    # Another library may have wrapped the function, as Sentry does.
    passes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    missing = [] if passes_all else sorted(_ARGUMENTS - parameters.keys())
    if missing:
        raise TypeError(f"get_request_handler has no argument {missing[0]!r}")


def _check_that_routes_call_it() -> None:
    """Check the byte code of FastAPI: a wrapper that is never called could not warn.

    Raises:
        LookupError: FastAPI does not call the function that is replaced.
    """
    function = inspect.unwrap(fastapi.routing.APIRoute.get_route_handler)
    module, code = function.__module__, getattr(function, "__code__", None)
    if code is None or module.partition(".")[0] != "fastapi":
        return  # Another library has replaced the method, and may call FastAPI's.
    if module != "fastapi.routing" or "get_request_handler" not in code.co_names:
        raise LookupError("APIRoute does not call get_request_handler")


def _is_supported(response_class: type[EventSourceResponse]) -> bool:
    """Return whether the wrapper works. Run the probe if that is not known yet.

    The probe runs at the first route and not at import, to keep the import fast.
    """
    if _Seam.supported is None:
        with _Seam.lock:
            # The routes of the probe get here, too.
            if _Seam.supported is None and not _Seam.probing:
                _Seam.probing = True
                try:
                    _Seam.supported = _probe_passes(response_class)
                finally:
                    _Seam.probing = False
    return _Seam.supported is not False


def _probe_passes(response_class: type[EventSourceResponse]) -> bool:
    from ._probe import Probe

    before = _Seam.redirected
    try:
        _Seam.probe = Probe(response_class)
        if _Seam.redirected != before + _Seam.probe.number_of_routes:
            raise LookupError("the routes were not redirected")
        _Seam.probe.run()
    except Exception as error:
        _fall_back(error)
        return False
    return True


def _fall_back(error: Exception) -> None:
    warnings.warn(
        "fastapi_sse_fast does not support this installation of FastAPI "
        f"{fastapi.__version__} ({type(error).__name__}: {error}): FastAPI itself "
        "streams the events, which is slower, has no options, and cannot send an "
        "EncodedEvent",
        RuntimeWarning,
        stacklevel=3,
    )
    _reject_events_with(_reject_event)


def _reject_event(event: EncodedEvent) -> Any:
    raise TypeError(
        f"{event!r} cannot be sent, because fastapi_sse_fast does not support this "
        "installation of FastAPI (see the RuntimeWarning): yield a ServerSentEvent"
    )


def _with_open_request(handle: _Handler) -> _Handler:
    """Wrap FastAPI's handler, which opens the dependencies and returns the response."""

    async def handle_opened(request: Request) -> Response:
        open_request(request)
        response = await handle(request)
        if isinstance(response, _AwaitableResponse):
            return await response.resolve()
        return response

    return handle_opened


def _streaming_class(response_class: Any) -> type[EventSourceResponse] | None:
    """Return the class that streams a route, or `None` if FastAPI handles the route."""
    if not isinstance(response_class, type):  # FastAPI's `DefaultPlaceholder`
        response_class = getattr(response_class, "value", None)
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
    yields = _classified(dependant, "gen") or _classified(dependant, "async_gen")
    blocks = not yields and not _classified(dependant, "coroutine")
    redirected = {
        **kwargs,
        "dependant": dataclasses.replace(
            dependant, call=_envelope(dependant, in_a_thread=blocks)
        ),
        "response_class": _stream_factory(response_class, kwargs, yields=yields),
        "is_json_stream": False,
    }
    _Seam.redirected += 1
    return redirected


def _classified(dependant: Any, kind: str) -> bool:
    """Return whether FastAPI classifies an endpoint as a kind of callable.

    Args:
        dependant: The dependant of the endpoint.
        kind: `gen`, `async_gen` or `coroutine`.
    """
    from fastapi.dependencies import models

    is_kind = getattr(models, f"_is_{kind}_callable", None)
    if is_kind is not None:
        return bool(is_kind(dependant.call))
    return bool(getattr(dependant, f"is_{kind}_callable"))  # in older releases


def _envelope(dependant: Any, *, in_a_thread: bool) -> Callable[..., Any]:
    """Return a generator function whose only item is what the endpoint returns.

    The item also contains the `Response` parameter of the endpoint, if it has one. The
    function has the name and the source location of the endpoint, for errors and
    telemetry.
    """
    call, response_param = dependant.call, dependant.response_param_name

    def begin(values: dict[str, Any]) -> tuple[Any, Response | None]:
        if in_a_thread:
            result = run_in_threadpool(functools.partial(call, **values))
        else:
            result = call(**values)
        return result, values.get(response_param)

    # The envelope must not have `__wrapped__`, or FastAPI would look through it.
    function = inspect.unwrap(call)
    code = getattr(function, "__code__", None)
    if code is None:
        return _Envelope(call, begin)

    def envelope(**values: Any) -> Iterator[Any]:
        yield begin(values)

    functools.update_wrapper(envelope, function, updated=())
    del envelope.__dict__["__wrapped__"]
    envelope.__code__ = envelope.__code__.replace(
        co_filename=code.co_filename, co_firstlineno=code.co_firstlineno
    )
    return envelope


class _Envelope:
    """The envelope of an endpoint that is not a function: it has no source location."""

    def __init__(
        self, call: Callable[..., Any], begin: Callable[[dict[str, Any]], Any]
    ) -> None:
        for name in ("__module__", "__name__", "__qualname__"):
            setattr(self, name, getattr(call, name, getattr(type(call), name)))
        self._begin = begin

    def __call__(self, /, **values: Any) -> Iterator[Any]:
        yield self._begin(values)


def _not_a_stream(call: Callable[..., Any], result: Any) -> str:
    return (
        f"{_name(call)}() has response_class=EventSourceResponse, but returned "
        f"{type(result).__name__!r}: `yield` the events, or return an iterable of them"
    )


def _name(call: Callable[..., Any]) -> str:
    return getattr(call, "__name__", repr(call))


def _stream_factory(
    response_class: type[EventSourceResponse], kwargs: dict[str, Any], *, yields: bool
) -> Callable[..., Response]:
    """Return the function that FastAPI calls as the response class of a route."""
    call, model = kwargs["dependant"].call, kwargs["response_field"]
    # For a generator, the return annotation is the type of the items instead.
    has_model = (
        not yields and model is not None and model.field_info.annotation is not Any
    )
    encoder_for: EncoderFactory
    if kwargs["stream_item_field"] is None:
        encoder_for = _plain_items
    else:
        encoder_for = _TypedItems(kwargs).encoder_for

    def stream(items: Any, **response_args: Any) -> EventSourceResponse:
        try:
            response = response_class(items, **response_args)
        except NotAStreamError:
            raise TypeError(_not_a_stream(call, items)) from None
        if has_model:
            # The response model may be there to hide fields from the client, so it must
            # not be ignored.
            raise TypeError(
                f"{_name(call)}() returns a stream, but a response model cannot be "
                "applied to it: `yield` the items, or set response_model=None"
            )
        return response.encode_items_with(encoder_for)

    def respond(content: Iterator[Any], **response_args: Any) -> Response:
        ((result, response_param),) = content
        if kwargs["status_code"]:  # FastAPI before 0.140.13 does not pass it on.
            response_args.setdefault("status_code", kwargs["status_code"])
        if isinstance(result, Response) or _must_be_awaited(result):
            return _AwaitableResponse(result, response_param, stream, response_args)
        return stream(result, **response_args)

    return respond


def _must_be_awaited(result: Any) -> bool:
    """Return whether an endpoint's result has to be awaited to get the stream."""
    return inspect.isawaitable(result) and not isinstance(result, AsyncIterable)


class _AwaitableResponse(Response):
    """A placeholder for a response that has to be awaited.

    FastAPI cannot await it, because it takes the endpoint for a generator function.

    Args:
        result: The result of the endpoint, or of a decorator around it.
        response_param: The `Response` parameter of the endpoint, if it has one.
        stream: The function that makes a response of the items.
        response_args: Further arguments of that function.
    """

    def __init__(
        self,
        result: Any,
        response_param: Response | None,
        stream: Callable[..., Response],
        response_args: dict[str, Any],
    ) -> None:
        self.raw_headers = []  # FastAPI adds the headers that dependencies have set.
        self._result = result
        self._response_param = response_param
        self._stream = stream
        self._response_args = response_args

    async def resolve(self) -> Response:
        """Return the actual response.

        It is awaited before the head is sent, so that an exception can become an error
        response.
        """
        result, response_param = self._result, self._response_param
        while _must_be_awaited(result):  # There may be several decorators.
            result = await result
        if isinstance(result, Response):
            if result.background is None:
                result.background = self._response_args.get("background")
            return result
        response = self._stream(result, **self._response_args)
        if response_param is None:
            response.raw_headers.extend(self.raw_headers)
        else:  # The endpoint may have set more while it was awaited.
            response.status_code = response_param.status_code or response.status_code
            response.raw_headers.extend(response_param.raw_headers)
        return response


def _plain_items(scope: Scope, json: Json) -> ItemEncoder:
    return ItemEncoder(json=json)


class _TypedItems:
    """The item type of a route, with its validator and its serializer."""

    def __init__(self, kwargs: dict[str, Any]) -> None:
        self._adapter = kwargs["stream_item_field"]._type_adapter
        self._dependant = kwargs["dependant"]
        self._options = {
            name: kwargs[f"response_model_{name}"]
            for name, default in _SERIALIZER_OPTIONS.items()
            if kwargs[f"response_model_{name}"] != default
        }

    def encoder_for(self, scope: Scope, json: Json) -> ItemEncoder:
        # The adapter is used at a request, when forward references can be resolved.
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
        """The item type, if pydantic accepts its instances without validation.

        That is the case for a model, unless it sets `revalidate_instances`, has a
        validator for the whole model, or a plugin of pydantic is active.
        """
        validate = self._adapter.validator.validate_python
        if type(getattr(validate, "__self__", None)) is not SchemaValidator:
            return None  # A plugin of pydantic has to see every item.
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
