"""The seam: how a route's generator gets to our response instead of FastAPI's encoder.

FastAPI encodes events in its router, not in the response class. `get_request_handler`
builds the handler of every route; it is wrapped here, and for routes of our class two
of its arguments are replaced: the endpoint becomes an *envelope*, a generator function
that yields what the endpoint returns, such as its un-started generator, and the
response class becomes a factory that opens it. For FastAPI that is a raw streaming
response. Parameters, dependencies, status, headers and background tasks remain its own
code.

This is the only module that needs what FastAPI does not document. The first route of
ours is preceded by a throwaway one, see `_probe.py`. Where that does not work, nothing
is replaced and FastAPI's own implementation streams: slower, never wrong.
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

    fits: bool | None = None
    """Whether the wrapper works; unknown before the first route of ours."""

    lock = threading.RLock()
    trying = False

    redirected = 0
    """How many routes were."""

    probe: Probe | None = None
    """Kept: FastAPI knows endpoints by their `id`, which another would get."""


def take_over(response_class: type[EventSourceResponse]) -> None:
    """Wraps FastAPI's router for routes of `response_class`, if it fits."""
    original: Any = getattr(fastapi.routing, "get_request_handler", None)
    try:
        _check_signature(original)
        _check_that_routes_call_it()
    except Exception as error:
        _leave_it_to_fastapi(error)
        return

    @functools.wraps(original)
    def get_request_handler(*args: Any, **kwargs: Any) -> Any:
        class_ = _streaming_class(kwargs.get("response_class"))
        if class_ is None or not _works(response_class):
            return original(*args, **kwargs)
        if missing := _ARGUMENTS - kwargs.keys():
            error = TypeError(f"a route was made without {min(missing)!r}")
            if _Seam.trying:
                raise error
            _leave_it_to_fastapi(error)
            return original(*args, **kwargs)
        return _opening(original(*args, **_redirected(class_, kwargs)))

    _Seam.ours = response_class
    fastapi.routing.get_request_handler = get_request_handler


def _refuse_events_with(refuse: Callable[[EncodedEvent], Any]) -> None:
    """Have `jsonable_encoder` call a function for events, which it cannot encode."""
    with contextlib.suppress(AttributeError):  # where it is called differently
        fastapi.encoders.ENCODERS_BY_TYPE[EncodedEvent] = refuse


# On routes with another response both would only say what they have tried.
EncodedEvent.__pydantic_serializer__ = _fallback.REFUSING  # type: ignore[attr-defined]
_refuse_events_with(_fallback.refuse)


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


def _check_signature(get_request_handler: Callable[..., Any]) -> None:
    parameters = inspect.signature(get_request_handler).parameters
    # Another library's wrapper, as Sentry's is.
    passes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    missing = [] if passes_all else sorted(_ARGUMENTS - parameters.keys())
    if missing:
        raise TypeError(f"get_request_handler has no argument {missing[0]!r}")


def _check_that_routes_call_it() -> None:
    """Look into FastAPI's function: a wrapper that nobody calls would warn of nothing.

    Raises:
        LookupError: The global that is replaced is not the one that FastAPI calls.
    """
    function = inspect.unwrap(fastapi.routing.APIRoute.get_route_handler)
    module, code = function.__module__, getattr(function, "__code__", None)
    if code is None or module.partition(".")[0] != "fastapi":
        return  # somebody has replaced it, and may call FastAPI's
    if module != "fastapi.routing" or "get_request_handler" not in code.co_names:
        raise LookupError("APIRoute does not call get_request_handler")


def _works(response_class: type[EventSourceResponse]) -> bool:
    """Try the wrapper, at the first route of ours: at import that would cost more."""
    if _Seam.fits is None:
        with _Seam.lock:
            if _Seam.fits is None and not _Seam.trying:  # by a route of the probe
                _Seam.trying = True
                try:
                    _Seam.fits = _fits(response_class)
                finally:
                    _Seam.trying = False
    return _Seam.fits is not False


def _fits(response_class: type[EventSourceResponse]) -> bool:
    from ._probe import Probe

    before = _Seam.redirected
    try:
        _Seam.probe = Probe(response_class)
        if _Seam.redirected != before + _Seam.probe.number_of_routes:
            raise LookupError("the routes were not redirected")
        _Seam.probe.run()
    except Exception as error:
        _leave_it_to_fastapi(error)
        return False
    return True


def _leave_it_to_fastapi(error: Exception) -> None:
    warnings.warn(
        f"fastapi_sse_fast does not know FastAPI {fastapi.__version__} as it is here "
        f"({type(error).__name__}: {error}): events are streamed by FastAPI itself, "
        "which is slower, has no options, and cannot send an EncodedEvent",
        RuntimeWarning,
        stacklevel=3,
    )
    _refuse_events_with(_refuse)


def _refuse(event: EncodedEvent) -> Any:
    raise TypeError(
        f"{event!r} cannot be sent by FastAPI itself, which streams here, as a warning "
        "of fastapi_sse_fast has said: yield a ServerSentEvent"
    )


def _opening(handle: _Handler) -> _Handler:
    """Wraps what opens the dependencies of a request and returns its response."""

    async def handle_opened(request: Request) -> Response:
        open_request(request)
        response = await handle(request)
        if isinstance(response, _Promised):
            return await response.awaited()
        return response

    return handle_opened


def _streaming_class(response_class: Any) -> type[EventSourceResponse] | None:
    """Our class for a route's `response_class`, if the route is ours to stream."""
    if not isinstance(response_class, type):  # what FastAPI marks a default with
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
    """Whether FastAPI takes an endpoint for a `gen`, `async_gen` or `coroutine`."""
    from fastapi.dependencies import models

    is_kind = getattr(models, f"_is_{kind}_callable", None)
    if is_kind is not None:
        return bool(is_kind(dependant.call))
    return bool(getattr(dependant, f"is_{kind}_callable"))  # of older releases


def _envelope(dependant: Any, *, in_a_thread: bool) -> Callable[..., Any]:
    """A generator function for FastAPI, whose only item is what an endpoint returns.

    With it comes the response that the endpoint has asked for, to set headers on. The
    name and the place of the function are the endpoint's, for errors and telemetry.
    """
    call, asked = dependant.call, dependant.response_param_name

    def begin(values: dict[str, Any]) -> tuple[Any, Response | None]:
        if in_a_thread:
            result = run_in_threadpool(functools.partial(call, **values))
        else:
            result = call(**values)
        return result, values.get(asked)

    # Not by `__wrapped__`: FastAPI would look through the envelope then.
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
    """The envelope of an endpoint that is no function, and so has no place."""

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
        f"{_name(call)}() has response_class=EventSourceResponse but returned "
        f"{type(result).__name__!r}: `yield` the events, or return an iterable of them"
    )


def _name(call: Callable[..., Any]) -> str:
    return getattr(call, "__name__", repr(call))


def _stream_factory(
    response_class: type[EventSourceResponse], kwargs: dict[str, Any], *, yields: bool
) -> Callable[..., Response]:
    """What FastAPI calls as the response class of a route, with the opened envelope."""
    call, model = kwargs["dependant"].call, kwargs["response_field"]
    # A generator's items have a type of their own.
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
            # Which may be there to keep something from the client.
            raise TypeError(
                f"{_name(call)}() returns its stream, to which no response model "
                "applies: `yield` the items, or set response_model=None"
            )
        return response.encode_items_with(encoder_for)

    def respond(content: Iterator[Any], **response_args: Any) -> Response:
        ((result, asked),) = content
        if kwargs["status_code"]:  # FastAPI before 0.140.13 forgets it
            response_args.setdefault("status_code", kwargs["status_code"])
        if isinstance(result, Response) or _is_promise(result):
            return _Promised(result, asked, stream, response_args)
        return stream(result, **response_args)

    return respond


def _is_promise(result: Any) -> bool:
    """Whether what an endpoint returned has to be awaited to get the stream."""
    return inspect.isawaitable(result) and not isinstance(result, AsyncIterable)


class _Promised(Response):
    """Stands for a response in FastAPI's code, which does not await what generators do.

    Args:
        result: What an endpoint, or a decorator around it, has returned.
        asked: The response that the endpoint was given, to set headers on.
        stream: Makes the response of the items that come out of the result.
        response_args: More arguments of it.
    """

    def __init__(
        self,
        result: Any,
        asked: Response | None,
        stream: Callable[..., Response],
        response_args: dict[str, Any],
    ) -> None:
        self.raw_headers = []  # FastAPI adds what dependencies have set
        self._result = result
        self._asked = asked
        self._stream = stream
        self._response_args = response_args

    async def awaited(self) -> Response:
        """Return the response: before its head, so that an error can be one."""
        result, asked = self._result, self._asked
        while _is_promise(result):  # one decorator around another
            result = await result
        if isinstance(result, Response):
            if result.background is None:
                result.background = self._response_args.get("background")
            return result
        response = self._stream(result, **self._response_args)
        if asked is None:
            response.raw_headers.extend(self.raw_headers)
        else:  # the endpoint has set more meanwhile
            response.status_code = asked.status_code or response.status_code
            response.raw_headers.extend(asked.raw_headers)
        return response


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

        It does so for a model, unless it is told to validate it again, a validator of
        the whole model stands around, or a plugin looks on.
        """
        validate = self._adapter.validator.validate_python
        if type(getattr(validate, "__self__", None)) is not SchemaValidator:
            return None  # a plugin of pydantic is to see every item
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
