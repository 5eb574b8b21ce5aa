//! What `data=` carries: a model writes itself, everything else is plain JSON.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::json::{self, Spelling};
use crate::pydantic;
use crate::wire::FrameWriter;

/// What a model has made of itself.
pub(super) enum Dump<'py> {
    Json(Bound<'py, PyBytes>),
    Text(Bound<'py, PyString>),
}

impl Dump<'_> {
    pub(super) fn as_bytes(&self) -> PyResult<&[u8]> {
        match self {
            Self::Json(json) => Ok(json.as_bytes()),
            Self::Text(text) => text.to_str().map(str::as_bytes),
        }
    }

    pub(super) fn write(&self, frame: &mut FrameWriter<'_>) -> PyResult<()> {
        match self {
            Self::Json(json) => frame.json(json.as_bytes()),
            Self::Text(text) => frame.data(text.to_str()?.as_bytes()),
        }
        Ok(())
    }
}

/// Write what `data=` carries. A model that has `model_dump_json` writes itself, by field name;
/// everything else is plain JSON.
///
/// # Errors
///
/// What encoding it raises.
pub(crate) fn write_data(
    data: &Bound<'_, PyAny>,
    json: Spelling,
    frame: &mut FrameWriter<'_>,
) -> PyResult<()> {
    match dumped(data)? {
        Some(dump) => dump.write(frame),
        None => frame.data_line(|out| json::write(data, json, out)),
    }
}

/// What `data` makes of itself, if it does.
pub(super) fn dumped<'py>(data: &Bound<'py, PyAny>) -> PyResult<Option<Dump<'py>>> {
    if is_plain(data) {
        return Ok(None);
    }
    let Some(dump) = json_method(data)? else {
        return Ok(None);
    };
    if let Some(json) = pydantic::dumped_json(&dump)? {
        return Ok(Some(Dump::Json(json)));
    }
    match dump.call0()?.cast_into::<PyString>() {
        Ok(text) => Ok(Some(Dump::Text(text))),
        Err(error) => Err(PyTypeError::new_err(format!(
            "model_dump_json() must return a str, not {}",
            error.into_inner().get_type().name()?
        ))),
    }
}

/// Whether `data` writes itself.
pub(crate) fn is_model(data: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(!is_plain(data) && json_method(data)?.is_some())
}

fn json_method<'py>(data: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    data.getattr_opt(intern!(data.py(), "model_dump_json"))
}

/// Whether `value` is of a builtin type that [`json`] writes without help.
pub(crate) fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyDict>()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyList>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyTuple>()
        || value.is_none()
}
