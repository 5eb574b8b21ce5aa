//! `ItemEncoder`: the frame of a yielded item.
//!
//! An item is a pre-encoded event, an event, an item that the route's type validates, or plain
//! data. How each of them is written is decided in other modules.

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
use crate::log::split;
use crate::output::Output;
use crate::sse_starlette::{self, Separator};
use crate::wire::{self, FrameWriter};

/// Encodes the items of one stream.
#[pyclass(frozen, module = "fastapi_sse_fast._core")]
pub(crate) struct ItemEncoder {
    items: ItemKind,
    json: Spelling,
    /// Whether events may have an `id`. Those of a log must not.
    allow_id: bool,
}

/// What an item is if it is not an event.
enum ItemKind {
    /// Data without a declared type. Its JSON is `json.dumps(jsonable_encoder(item))`.
    Plain,
    /// A value of the route's item type. It is validated, and pydantic writes its JSON.
    Typed {
        validate: Function,
        serialize: Function,
        invalid: Py<PyAny>,
        /// The class whose instances need no validation. Never a class of events.
        valid: Option<Py<PyType>>,
    },
    /// As `Plain`, but `str` and bytes are parts of the body, as in a `StreamingResponse`.
    Chunks {
        /// Called with the first item if it is text that cannot begin an event.
        no_event: Option<Py<PyAny>>,
        /// Whether no item was encoded yet.
        first: AtomicBool,
    },
    /// Whatever sse-starlette makes of it.
    SseStarlette(Separator),
}

/// A function of one argument, with keyword arguments for every call. A `functools.partial` would
/// copy them for each call, which costs a quarter of what the JSON of a model costs.
struct Function {
    callable: Py<PyAny>,
    options: Option<Py<PyDict>>,
}

impl Function {
    fn call<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = value.py();
        let callable = self.callable.bind(py);
        match &self.options {
            Some(options) => callable.call((value,), Some(options.bind(py))),
            None => callable.call1((value,)),
        }
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.callable)?;
        visit.call(&self.options)
    }
}

#[pymethods]
impl ItemEncoder {
    #[new]
    #[pyo3(
        signature = (*, json=Spelling::Fastapi, allow_id=true),
        text_signature = "(*, json='fastapi', allow_id=True)"
    )]
    fn new(json: Spelling, allow_id: bool) -> Self {
        Self {
            items: ItemKind::Plain,
            json,
            allow_id,
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
                validate: Function {
                    callable: validate,
                    options: validate_options,
                },
                serialize: Function {
                    callable: serialize,
                    options: serialize_options,
                },
                invalid,
                valid,
            },
            json,
            allow_id: true,
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
            allow_id: true,
        }
    }

    #[staticmethod]
    #[pyo3(signature = (sep, /))]
    pub(crate) fn sse_starlette(sep: Separator) -> Self {
        Self {
            items: ItemKind::SseStarlette(sep),
            json: Spelling::Fastapi,
            allow_id: true,
        }
    }
}

impl ItemEncoder {
    /// Append the frame of `item` to `out`, or return it if it is large and do not change `out`.
    /// After an error `out` may end with a part of the frame, which the caller truncates.
    ///
    /// # Errors
    ///
    /// Whatever validation, a serializer or FastAPI's encoder raises, or `MemoryError`.
    pub(crate) fn encode<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        out: &mut Vec<u8>,
    ) -> PyResult<Large<'py>> {
        let start = out.len();
        let mut output = Output::from(mem::take(out));
        let large = self.write(item, &mut output);
        let is_whole = output.check();
        *out = output.into();
        let large = large?;
        is_whole?;
        if !self.allow_id {
            let frame = large
                .as_ref()
                .map_or(&out[start..], |large| large.as_bytes());
            split::check_no_id(frame)?;
        }
        Ok(large)
    }

    /// As [`Self::encode`], to an output whose caller checks that memory did not run out.
    ///
    /// # Errors
    ///
    /// Whatever validation, a serializer or FastAPI's encoder raises.
    pub(crate) fn write<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        out: &mut Output,
    ) -> PyResult<Large<'py>> {
        let py = item.py();
        if let Ok(encoded) = item.cast_exact::<EncodedEvent>() {
            return Ok(bytes::append(encoded.get().frame(py), out));
        }
        // The usual items of a stream are recognized by their exact class. That is cheaper than
        // finding out whether an item is an event, so it comes first.
        match &self.items {
            ItemKind::Typed {
                serialize,
                valid: Some(valid),
                ..
            } if item.get_type().is(valid) => return write_json(&serialize.call(item)?, out),
            ItemKind::Chunks { no_event, first } => {
                if first.swap(false, Relaxed)
                    && let Some(no_event) = no_event
                    && let Ok(part) = item.cast::<PyString>()
                    && part.to_str().is_ok_and(|text| !wire::can_begin_event(text))
                {
                    no_event.call1(py, (part,))?;
                }
                if let Ok(part) = item.cast_exact::<PyBytes>() {
                    return Ok(bytes::append(part, out));
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
            ItemKind::Plain => write_plain(item, self.json, out),
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
                // Small text is usual, and needs no `bytes` object.
                if let Ok(text) = item.cast_exact::<PyString>()
                    && text.len()? < LARGE
                {
                    let start = out.len();
                    out.extend_from_slice(text.to_str()?.as_bytes());
                    return bytes::split_off_large(py, out, start);
                }
                match body_part(item)? {
                    Some(part) => Ok(bytes::append(&part, out)),
                    None => write_plain(item, self.json, out),
                }
            }
            ItemKind::SseStarlette(separator) => sse_starlette::write_text(item, *separator, out),
        }
    }
}

/// Append `data: <json>` and a blank line, or return that frame if it is large. `json` is what
/// pydantic has returned.
fn write_json<'py>(json: &Bound<'py, PyAny>, out: &mut Output) -> PyResult<Large<'py>> {
    let py = json.py();
    let json = json.cast::<PyBytes>()?.as_bytes();
    if let Some(lines) = bytes::large_lines(json) {
        return bytes::surround(py, b"", &lines, b"\n").map(Some);
    }
    let start = out.len();
    let mut frame = FrameWriter::new(out);
    frame.json(json);
    frame.end();
    bytes::split_off_large(py, out, start)
}

#[doc = stub_doc!("encode_event")]
#[pyfunction]
#[pyo3(
    signature = (item, /, *, json=Spelling::Fastapi),
    text_signature = "(item, /, *, json='fastapi')"
)]
pub(crate) fn encode_event(item: &Bound<'_, PyAny>, json: Spelling) -> PyResult<EncodedEvent> {
    let encoder = ItemEncoder::new(json, true);
    bytes::build(item.py(), |out| encoder.write(item, out)).map(EncodedEvent::of)
}

/// Append `data: <the JSON of the item>` and a blank line, or return that frame if it is large.
fn write_plain<'py>(
    item: &Bound<'py, PyAny>,
    json: Spelling,
    out: &mut Output,
) -> PyResult<Large<'py>> {
    let start = out.len();
    let mut frame = FrameWriter::new(out);
    frame.data_line(|out| json::write(item, json, out))?;
    frame.end();
    bytes::split_off_large(item.py(), out, start)
}

/// Return the bytes of an item that is a part of the body, or `None` if it is data.
fn body_part<'py>(item: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let py = item.py();
    if let Ok(text) = item.cast::<PyString>() {
        text.encode_utf8().map(Some)
    } else if let Ok(bytes) = item.cast::<PyBytes>() {
        bytes::copy(py, bytes.as_bytes()).map(Some)
    } else if item.is_instance_of::<PyByteArray>() || item.is_instance_of::<PyMemoryView>() {
        let bytes = py.get_type::<PyBytes>().call1((item,))?;
        Ok(Some(bytes.cast_into()?))
    } else {
        Ok(None)
    }
}

/// Return the exception to raise for an item that is not valid. For a `ValidationError` it is
/// `invalid(item, error)`, which knows the route. Other exceptions stay as they are, as in FastAPI.
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
