//! `format_sse_event`: the frame of an event whose data is text already.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString};

use crate::bytes;
use crate::event::Checked;
use crate::json::Spelling;

#[doc = stub_doc!("format_sse_event")]
#[pyfunction]
#[pyo3(signature = (*, data_str=None, event=None, id=None, retry=None, comment=None))]
pub(crate) fn format_sse_event<'py>(
    py: Python<'py>,
    data_str: Option<&Bound<'py, PyAny>>,
    event: Option<&Bound<'py, PyAny>>,
    id: Option<&Bound<'py, PyAny>>,
    retry: Option<&Bound<'py, PyAny>>,
    comment: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    // FastAPI formats these with f-strings, so any object may be passed.
    let event = event.map(PyAnyMethods::str).transpose()?;
    let id = id.map(PyAnyMethods::str).transpose()?;
    let fields = Checked {
        comment: comment.map(|value| text("comment", value)).transpose()?,
        event: event.as_ref().map(|event| event.to_str()).transpose()?,
        raw_data: data_str.map(|value| text("data_str", value)).transpose()?,
        id: id.as_ref().map(|id| id.to_str()).transpose()?,
        retry: retry.map(digits).transpose()?,
    };
    bytes::build(py, |out| fields.write(py, None, Spelling::Fastapi, out))
}

/// Return `retry` as text. Only its characters are checked later, so that `"5"` is valid too.
fn digits<'py>(retry: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
    // `str(True)` would be `"True"`; as a number it is 1.
    match retry.cast::<PyInt>() {
        Ok(number) => number.call_method0("__int__")?.str(),
        Err(_) => retry.str(),
    }
}

fn text<'a>(name: &str, value: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    match value.cast::<PyString>() {
        Ok(text) => text.to_str(),
        Err(_) => Err(PyTypeError::new_err(format!(
            "{name} must be a str, not {}",
            value.get_type().name()?
        ))),
    }
}
