//! Items as sse-starlette encodes them.
//!
//! An event is an object or a dict with the fields of an event; any other item is sent as its
//! `str()`. The bytes are those of sse-starlette, with its order of fields and its line ends.

use pyo3::Borrowed;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyInt, PyMemoryView, PyString, PyType};

use crate::bytes::{self, Large};
use crate::dict_items::DictItems;
use crate::encoder::ItemEncoder;
use crate::event::is_plain;
use crate::inheritance::Base;
use crate::output::Output;
use crate::wire::{Cr, CrLf, FrameWriter, Lf, LineEnd};

const EVENT_MODULE: &str = "fastapi_sse_fast.sse_starlette.event";
const ORIGINAL_MODULE: &str = "fastapi_sse_fast.sse_starlette._original";

/// `sep`: the line end of a frame.
#[derive(Clone, Copy)]
pub(crate) enum Separator {
    Lf,
    Cr,
    CrLf,
}

impl<'a, 'py> FromPyObject<'a, 'py> for Separator {
    type Error = PyErr;

    fn extract(sep: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(text) = sep.cast::<PyString>() {
            match text.to_cow()?.as_ref() {
                "\r\n" => return Ok(Self::CrLf),
                "\n" => return Ok(Self::Lf),
                "\r" => return Ok(Self::Cr),
                _ => {}
            }
        }
        Err(PyValueError::new_err(format!(
            r"sep must be one of: \r\n, \r, \n, got: {}",
            sep.repr()?
        )))
    }
}

/// The fields of one event as Python holds them; `None` where a field is absent.
#[derive(Default)]
struct Fields<'py> {
    comment: Option<Bound<'py, PyAny>>,
    id: Option<Bound<'py, PyAny>>,
    event: Option<Bound<'py, PyAny>>,
    data: Option<Bound<'py, PyAny>>,
    retry: Option<Bound<'py, PyAny>>,
}

impl<'py> Fields<'py> {
    fn of_event(event: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = event.py();
        Ok(Self {
            comment: some(event.getattr(intern!(py, "comment"))?),
            id: some(event.getattr(intern!(py, "id"))?),
            event: some(event.getattr(intern!(py, "event"))?),
            data: some(event.getattr(intern!(py, "data"))?),
            retry: some(event.getattr(intern!(py, "retry"))?),
        })
    }

    /// Read the fields of an event from a dict. A `sep` in it is ignored, as in sse-starlette: the
    /// stream has its own.
    fn of_dict(dict: &Bound<'py, PyDict>) -> PyResult<Self> {
        let py = dict.py();
        let mut fields = Self::default();
        for item in DictItems::of(dict) {
            let (key, value) = item?;
            let Ok(name) = key.cast::<PyString>() else {
                return Err(PyTypeError::new_err(format!(
                    "the keys of an event's dict must be field names, not {}",
                    key.repr()?
                )));
            };
            let field = if key.is(intern!(py, "data")) {
                &mut fields.data
            } else {
                match name.to_str()? {
                    "data" => &mut fields.data,
                    "event" => &mut fields.event,
                    "id" => &mut fields.id,
                    "retry" => &mut fields.retry,
                    "comment" => &mut fields.comment,
                    "sep" => continue,
                    _ => return Err(unknown_field(&key)?),
                }
            };
            *field = some(value);
        }
        Ok(fields)
    }

    /// Append the frame, or return it if it is large.
    fn write(
        &self,
        py: Python<'py>,
        separator: Separator,
        out: &mut Output,
    ) -> PyResult<Large<'py>> {
        let start = out.len();
        match separator {
            Separator::Lf => self.write_lines::<Lf>(out),
            Separator::Cr => self.write_lines::<Cr>(out),
            Separator::CrLf => self.write_lines::<CrLf>(out),
        }?;
        bytes::split_off_large(py, out, start)
    }

    /// Append the frame, in sse-starlette's order: comment, id, event, data, retry.
    fn write_lines<L: LineEnd>(&self, out: &mut Output) -> PyResult<()> {
        let mut frame = FrameWriter::<L>::with_line_end(out);
        if let Some(comment) = &self.comment {
            frame.comment(comment.str()?.to_str()?);
        }
        if let Some(id) = &self.id {
            frame.line_without_breaks(b"id: ", text("id", id)?.to_str()?);
        }
        if let Some(event) = &self.event {
            frame.line_without_breaks(b"event: ", text("event", event)?.to_str()?);
        }
        if let Some(data) = &self.data {
            frame.data(data.str()?.to_str()?.as_bytes());
        }
        if let Some(retry) = &self.retry {
            frame.line_without_breaks(b"retry: ", digits(retry)?.to_str()?);
        }
        frame.end();
        Ok(())
    }
}

/// Append the frame of an event or of bytes, or return it if it is large. Return `None` for any
/// other item: [`write_text`] writes it.
///
/// # Errors
///
/// `TypeError` for a field of a wrong type, or whatever the object raises. The caller truncates
/// `out`.
pub(crate) fn write_event<'py>(
    item: &Bound<'py, PyAny>,
    separator: Separator,
    out: &mut Output,
) -> PyResult<Option<Large<'py>>> {
    let py = item.py();
    if let Ok(frame) = item.cast_exact::<PyBytes>() {
        return Ok(Some(bytes::append(frame, out)));
    }
    let classes = Classes::of(py)?;
    let class = item.get_type();
    if class.is(classes.event.class()) || class.is(&classes.json_event) {
        return write_fields(item, out).map(Some);
    }
    if let Ok(dict) = item.cast_exact::<PyDict>() {
        return Fields::of_dict(dict)?.write(py, separator, out).map(Some);
    }
    if is_plain(item) {
        return Ok(None);
    }
    if item.is_instance_of::<PyBytes>() || item.is_instance_of::<PyMemoryView>() {
        let frame = py.get_type::<PyBytes>().call1((item,))?;
        return Ok(Some(bytes::append(&frame.cast_into()?, out)));
    }
    if classes.event.is_inherited_by(&class)? {
        if class.getattr(intern!(py, "encode"))?.is(&classes.encode) {
            return write_fields(item, out).map(Some);
        }
        return write_encoded(item, out).map(Some);
    }
    if item.is_instance_of::<PyDict>() {
        let dict = py.get_type::<PyDict>().call1((item,))?.cast_into()?;
        return Fields::of_dict(&dict)?.write(py, separator, out).map(Some);
    }
    if is_event_of_original(item)? {
        return write_encoded(item, out).map(Some);
    }
    Ok(None)
}

/// Append `data: <str(item)>` and a blank line, or return that frame if it is large.
///
/// # Errors
///
/// Whatever `__str__` raises. The caller truncates `out`.
pub(crate) fn write_text<'py>(
    item: &Bound<'py, PyAny>,
    separator: Separator,
    out: &mut Output,
) -> PyResult<Large<'py>> {
    let fields = Fields {
        data: Some(item.clone()),
        ..Fields::default()
    };
    fields.write(item.py(), separator, out)
}

/// Append the frame of one of our events, or return it if it is large. The event has its own `sep`.
fn write_fields<'py>(event: &Bound<'py, PyAny>, out: &mut Output) -> PyResult<Large<'py>> {
    let py = event.py();
    let separator = event.getattr(intern!(py, "_sep"))?.extract()?;
    Fields::of_event(event)?.write(py, separator, out)
}

/// Append what the `encode` method of an event returns, or return it if it is large.
fn write_encoded<'py>(event: &Bound<'py, PyAny>, out: &mut Output) -> PyResult<Large<'py>> {
    let frame = event.call_method0(intern!(event.py(), "encode"))?;
    match frame.cast_into::<PyBytes>() {
        Ok(frame) => Ok(bytes::append(&frame, out)),
        Err(error) => Err(PyTypeError::new_err(format!(
            "{}.encode() must return bytes, not {}",
            event.get_type().name()?,
            error.into_inner().get_type().name()?
        ))),
    }
}

struct Classes {
    event: Base,
    json_event: Py<PyType>,
    /// `ServerSentEvent.encode`, to find out whether a subclass overrides it.
    encode: Py<PyAny>,
}

impl Classes {
    fn of(py: Python<'_>) -> PyResult<&Self> {
        static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();
        CLASSES.get_or_try_init(py, || {
            let module = py.import(EVENT_MODULE)?;
            let event = module.getattr("ServerSentEvent")?.cast_into::<PyType>()?;
            let json_event = module.getattr("JSONServerSentEvent")?;
            Ok(Self {
                encode: event.getattr("encode")?.unbind(),
                event: Base::new(&event)?,
                json_event: json_event.cast_into::<PyType>()?.unbind(),
            })
        })
    }
}

fn is_event_of_original(item: &Bound<'_, PyAny>) -> PyResult<bool> {
    static IS_EVENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let is_event = IS_EVENT.import(item.py(), ORIGINAL_MODULE, "is_event")?;
    is_event.call1((item,))?.extract()
}

fn some(value: Bound<'_, PyAny>) -> Option<Bound<'_, PyAny>> {
    (!value.is_none()).then_some(value)
}

fn text<'a, 'py>(field: &str, value: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyString>> {
    value.cast::<PyString>().map_err(|_| {
        let class = value.get_type();
        PyTypeError::new_err(format!("{field} argument must be str, not {class}"))
    })
}

fn digits<'py>(retry: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
    if retry.is_exact_instance_of::<PyInt>() {
        return retry.str();
    }
    if !retry.is_instance_of::<PyInt>() {
        return Err(PyTypeError::new_err("retry argument must be int"));
    }
    let format = intern!(retry.py(), "__format__");
    Ok(retry.call_method1(format, ("",))?.cast_into()?)
}

#[cold]
fn unknown_field(name: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    Ok(PyTypeError::new_err(format!(
        "an event has no field {}: a dict can have data, event, id, retry and comment",
        name.repr()?
    )))
}

#[doc = stub_doc!("sse_starlette_bytes")]
#[pyfunction]
#[pyo3(signature = (data, sep, /))]
pub(crate) fn sse_starlette_bytes<'py>(
    data: &Bound<'py, PyAny>,
    sep: Separator,
) -> PyResult<Bound<'py, PyBytes>> {
    let encoder = ItemEncoder::sse_starlette(sep);
    bytes::build(data.py(), |out| encoder.write(data, out))
}

#[doc = stub_doc!("sse_starlette_check")]
#[pyfunction]
#[pyo3(signature = (sep, /))]
pub(crate) fn sse_starlette_check(sep: &Bound<'_, PyAny>) -> PyResult<()> {
    sep.extract::<Separator>().map(drop)
}

#[doc = stub_doc!("sse_starlette_frame")]
#[pyfunction]
#[pyo3(signature = (event, /))]
pub(crate) fn sse_starlette_frame<'py>(event: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    bytes::build(event.py(), |out| write_fields(event, out))
}
