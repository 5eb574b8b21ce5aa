//! `format_sse_event`: one frame from text that is ready.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString};

use crate::wire::Frame;

/// Makes the bytes of one event, as `fastapi.sse.format_sse_event` does, and refuses what would
/// inject a line. `event`, `id` and `retry` are formatted with `str()`, as its f-strings do.
///
/// # Errors
///
/// `ValueError` for a line break in `event` or `id`, NUL in `id`, a `retry` that is not a
/// non-negative integer.
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
    let mut out = Vec::new();
    let mut frame = Frame::new(&mut out);
    if let Some(comment) = comment {
        frame.comment(text("comment", comment)?.to_str()?);
    }
    if let Some(event) = event {
        frame.event(event.str()?.to_str()?)?;
    }
    if let Some(data) = data_str {
        frame.data(text("data_str", data)?.to_str()?.as_bytes());
    }
    if let Some(id) = id {
        frame.id(id.str()?.to_str()?)?;
    }
    if let Some(retry) = retry {
        // `int` first: `True` is a number, not a word.
        let digits = match retry.cast::<PyInt>() {
            Ok(number) => number.call_method0("__int__")?.str()?,
            Err(_) => retry.str()?,
        };
        frame.retry_digits(digits.to_str()?)?;
    }
    frame.end();
    Ok(PyBytes::new(py, &out))
}

fn text<'a, 'py>(name: &str, value: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyString>> {
    match value.cast::<PyString>() {
        Ok(text) => Ok(text),
        Err(_) => Err(PyTypeError::new_err(format!(
            "{name} must be a str, not {}",
            value.get_type().name()?
        ))),
    }
}
