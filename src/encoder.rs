//! What a yielded item becomes: a ready frame, an event, a validated item or plain JSON.

use std::mem;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::PyTypeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyMemoryView, PyString, PyType};

use crate::bytes::{self, LARGE, Large};
use crate::encoded::EncodedEvent;
use crate::event::{EventTypes, is_plain};
use crate::json::{self, Spelling};
use crate::output::Output;
use crate::sse_starlette::{self, Separator};
use crate::wire::{self, FrameWriter};

/// Turns the items of one stream into frames.
#[pyclass(frozen, module = "fastapi_sse_fast._core")]
pub(crate) struct ItemEncoder {
    items: ItemKind,
    json: Spelling,
}

/// What items that are no events are.
enum ItemKind {
    /// Of no declared type: `json.dumps(jsonable_encoder(item))`.
    Plain,
    /// Of the route's item type: validated, then pydantic's JSON.
    Typed {
        validate: Method,
        serialize: Method,
        invalid: Py<PyAny>,
        /// The class whose instances are valid as they are; none of events.
        valid: Option<Py<PyType>>,
    },
    /// As `Plain`, but `str` and bytes are parts of the body already, as in a
    /// `StreamingResponse`.
    Chunks {
        /// Is told of a first part that no event begins with.
        no_event: Option<Py<PyAny>>,
        /// Whether nothing was encoded yet.
        first: AtomicBool,
    },
    /// What they are to sse-starlette.
    SseStarlette(Separator),
}

/// A function of one argument, and the keyword arguments that go with it. A `functools.partial`
/// of the same would copy these for every call, at a quarter of what the JSON of a model costs.
struct Method {
    function: Py<PyAny>,
    options: Option<Py<PyDict>>,
}

impl Method {
    fn call<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = value.py();
        let function = self.function.bind(py);
        match &self.options {
            Some(options) => function.call((value,), Some(options.bind(py))),
            None => function.call1((value,)),
        }
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.function)?;
        visit.call(&self.options)
    }
}

#[pymethods]
impl ItemEncoder {
    #[new]
    #[pyo3(signature = (*, json=Spelling::Fastapi), text_signature = "(*, json='fastapi')")]
    fn new(json: Spelling) -> Self {
        Self {
            items: ItemKind::Plain,
            json,
        }
    }

    #[staticmethod]
    #[pyo3(
        signature = (
            *, validate, serialize, invalid, validate_options=None, serialize_options=None,
            valid=None, json=Spelling::Fastapi
        ),
        text_signature = "(*, validate, serialize, invalid, validate_options=None, \
                          serialize_options=None, valid=None, json='fastapi')"
    )]
    fn typed(
        validate: Py<PyAny>,
        serialize: Py<PyAny>,
        invalid: Py<PyAny>,
        validate_options: Option<Py<PyDict>>,
        serialize_options: Option<Py<PyDict>>,
        valid: Option<Bound<'_, PyType>>,
        json: Spelling,
    ) -> PyResult<Self> {
        let valid = match valid {
            Some(class) if EventTypes::of(class.py())?.is_event_class(&class)? => None,
            valid => valid.map(Bound::unbind),
        };
        Ok(Self {
            items: ItemKind::Typed {
                validate: Method {
                    function: validate,
                    options: validate_options,
                },
                serialize: Method {
                    function: serialize,
                    options: serialize_options,
                },
                invalid,
                valid,
            },
            json,
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let ItemKind::Typed {
            validate,
            serialize,
            invalid,
            valid,
        } = &self.items
        {
            if let Some(valid) = valid {
                visit.call(valid)?;
            }
            validate.traverse(&visit)?;
            serialize.traverse(&visit)?;
            visit.call(invalid)?;
        }
        if let ItemKind::Chunks { no_event, .. } = &self.items {
            visit.call(no_event)?;
        }
        Ok(())
    }

    #[staticmethod]
    #[pyo3(
        signature = (*, json=Spelling::Fastapi, no_event=None),
        text_signature = "(*, json='fastapi', no_event=None)"
    )]
    fn chunks(json: Spelling, no_event: Option<Py<PyAny>>) -> Self {
        Self {
            items: ItemKind::Chunks {
                no_event,
                first: AtomicBool::new(true),
            },
            json,
        }
    }

    #[staticmethod]
    #[pyo3(signature = (sep, /))]
    pub(crate) fn sse_starlette(sep: Separator) -> Self {
        Self {
            items: ItemKind::SseStarlette(sep),
            json: Spelling::Fastapi,
        }
    }
}

impl ItemEncoder {
    /// Encode `item`: append a small frame to `out` and return `None`, or return a large one as
    /// `bytes` of its own and leave `out` as it was. On an error `out` may hold a torn tail, which
    /// the caller truncates.
    ///
    /// # Errors
    ///
    /// What validation, a serializer or FastAPI's encoder raise.
    pub(crate) fn encode<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        out: &mut Vec<u8>,
    ) -> PyResult<Large<'py>> {
        let mut output = Output::from(mem::take(out));
        let large = self.write(item, &mut output);
        let is_whole = output.check();
        *out = output.into();
        let large = large?;
        is_whole?;
        Ok(large)
    }

    pub(crate) fn write<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        out: &mut Output,
    ) -> PyResult<Large<'py>> {
        let py = item.py();
        if let Ok(encoded) = item.cast_exact::<EncodedEvent>() {
            return Ok(bytes::appended(encoded.get().frame(py), out));
        }
        // What is usual in a stream is known by its exact class, which is sooner asked than
        // whether it is an event.
        match &self.items {
            ItemKind::Typed {
                serialize,
                valid: Some(valid),
                ..
            } if item.get_type().is(valid) => return write_json(&serialize.call(item)?, out),
            ItemKind::Chunks { no_event, first } => {
                if first.swap(false, Relaxed)
                    && let Some(tell) = no_event
                    && let Ok(part) = item.cast::<PyString>()
                    && part
                        .to_str()
                        .is_ok_and(|text| !wire::can_begin_an_event(text))
                {
                    tell.call1(py, (part,))?;
                }
                if let Ok(chunk) = item.cast_exact::<PyBytes>() {
                    return Ok(bytes::appended(chunk, out));
                }
            }
            ItemKind::SseStarlette(separator) => {
                if let Some(written) = sse_starlette::write_event(item, *separator, out)? {
                    return Ok(written);
                }
            }
            _ => {}
        }
        if !is_plain(item)
            && let Some(fields) = EventTypes::of(py)?.fields(item)?
        {
            return fields.write(py, self.json, out);
        }
        match &self.items {
            ItemKind::Plain => plain(item, self.json, out),
            ItemKind::Typed {
                validate,
                serialize,
                invalid,
                ..
            } => {
                let value = validate.call(item).map_err(|error| {
                    explain(py, item, error, invalid).unwrap_or_else(|raised| raised)
                })?;
                write_json(&serialize.call(&value)?, out)
            }
            ItemKind::Chunks { .. } => {
                // The usual text, without an object for its bytes.
                if let Ok(text) = item.cast_exact::<PyString>()
                    && text.len()? < LARGE
                {
                    let start = out.len();
                    out.extend_from_slice(text.to_str()?.as_bytes());
                    return bytes::split_off_large(py, out, start);
                }
                match chunk(item)? {
                    Some(chunk) => Ok(bytes::appended(&chunk, out)),
                    None => plain(item, self.json, out),
                }
            }
            ItemKind::SseStarlette(separator) => sse_starlette::write_text(item, *separator, out),
        }
    }
}

/// Append the frame of JSON that pydantic has made, or return it if it is large.
fn write_json<'py>(json: &Bound<'py, PyAny>, out: &mut Output) -> PyResult<Large<'py>> {
    let bytes = json.cast::<PyBytes>()?.as_bytes();
    if bytes.len() >= LARGE {
        return bytes::around(json.py(), b"", bytes, b"\n").map(Some);
    }
    let mut frame = FrameWriter::new(out);
    frame.json(bytes);
    frame.end();
    Ok(None)
}

#[doc = stub_doc!("encode_event")]
#[pyfunction]
#[pyo3(
    signature = (item, /, *, json=Spelling::Fastapi),
    text_signature = "(item, /, *, json='fastapi')"
)]
pub(crate) fn encode_event(item: &Bound<'_, PyAny>, json: Spelling) -> PyResult<EncodedEvent> {
    let encoder = ItemEncoder::new(json);
    bytes::made(item.py(), |out| encoder.write(item, out)).map(EncodedEvent::of)
}

fn plain<'py>(item: &Bound<'py, PyAny>, json: Spelling, out: &mut Output) -> PyResult<Large<'py>> {
    let start = out.len();
    let mut frame = FrameWriter::new(out);
    frame.data_line(|out| json::write(item, json, out))?;
    frame.end();
    bytes::split_off_large(item.py(), out, start)
}

/// Return the bytes of `item` if it is part of a body and no exact `bytes`.
fn chunk<'py>(item: &Bound<'py, PyAny>) -> PyResult<Large<'py>> {
    let py = item.py();
    if let Ok(text) = item.cast::<PyString>() {
        text.encode_utf8().map(Some)
    } else if let Ok(bytes) = item.cast::<PyBytes>() {
        bytes::copied(py, bytes.as_bytes()).map(Some)
    } else if item.is_instance_of::<PyByteArray>() || item.is_instance_of::<PyMemoryView>() {
        let bytes = py.get_type::<PyBytes>().call1((item,))?;
        Ok(Some(bytes.cast_into()?))
    } else {
        Ok(None)
    }
}

/// The exception to raise for an item that failed validation: `invalid(item, error)`, which
/// knows the route. Other exceptions of a validator pass unchanged, as in FastAPI.
fn explain(
    py: Python<'_>,
    item: &Bound<'_, PyAny>,
    error: PyErr,
    invalid: &Py<PyAny>,
) -> PyResult<PyErr> {
    static VALIDATION_ERROR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class = VALIDATION_ERROR.import(py, "pydantic_core", "ValidationError")?;
    if !error.value(py).is_instance(class)? {
        return Ok(error);
    }
    let explained = invalid.bind(py).call1((item, error.value(py)))?;
    if explained.is_instance_of::<pyo3::exceptions::PyBaseException>() {
        Ok(PyErr::from_value(explained))
    } else {
        Err(PyTypeError::new_err("invalid() must return an exception"))
    }
}
