//! The JSON of `data=`: that of `model_dump_json()` for a model, FastAPI's plain JSON otherwise.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::json::{self, Spelling};
use crate::pydantic;
use crate::wire::FrameWriter;

/// The result of a `model_dump_json()`.
pub(super) enum ModelJson<'py> {
    /// JSON from pydantic's serializer.
    Json(Bound<'py, PyBytes>),
    /// Text from any other method.
    Text(Bound<'py, PyString>),
}

impl ModelJson<'_> {
    pub(super) fn as_bytes(&self) -> PyResult<&[u8]> {
        match self {
            Self::Json(json) => Ok(json.as_bytes()),
            Self::Text(text) => text.to_str().map(str::as_bytes),
        }
    }

    /// Write `data: <line>` for each line of it.
    pub(super) fn write(&self, frame: &mut FrameWriter<'_>) -> PyResult<()> {
        match self {
            Self::Json(json) => frame.json(json.as_bytes()),
            Self::Text(text) => frame.data(text.to_str()?.as_bytes()),
        }
        Ok(())
    }
}

/// Write the `data: ` lines for `data`. An object with a `model_dump_json` method is encoded by it,
/// with field names instead of aliases; everything else becomes plain JSON.
///
/// # Errors
///
/// Whatever encoding the data raises.
pub(crate) fn write_data(
    data: &Bound<'_, PyAny>,
    json: Spelling,
    frame: &mut FrameWriter<'_>,
) -> PyResult<()> {
    match dump_model(data)? {
        Some(json) => json.write(frame),
        None => frame.data_line(|out| json::write(data, json, out)),
    }
}

/// Return the result of `data.model_dump_json()`, or `None` if there is no such method.
///
/// # Errors
///
/// Whatever the method raises, or `TypeError` if it does not return text.
pub(super) fn dump_model<'py>(data: &Bound<'py, PyAny>) -> PyResult<Option<ModelJson<'py>>> {
    if is_plain(data) {
        return Ok(None);
    }
    let Some(method) = json_method(data)? else {
        return Ok(None);
    };
    if let Some(json) = pydantic::dump_json(&method)? {
        return Ok(Some(ModelJson::Json(json)));
    }
    match method.call0()?.cast_into::<PyString>() {
        Ok(text) => Ok(Some(ModelJson::Text(text))),
        Err(error) => Err(PyTypeError::new_err(format!(
            "model_dump_json() must return a str, not {}",
            error.into_inner().get_type().name()?
        ))),
    }
}

/// Return whether `data` has a `model_dump_json` method.
pub(crate) fn is_model(data: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(!is_plain(data) && json_method(data)?.is_some())
}

fn json_method<'py>(data: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    data.getattr_opt(intern!(data.py(), "model_dump_json"))
}

/// Return whether `value` is exactly of a builtin type that [`json`] writes without Python code.
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
