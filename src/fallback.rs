//! FastAPI's own code, for values that the fast paths do not handle.
//!
//! It is reached through the Python module `fastapi_sse_fast._fallback`.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyType};

use crate::json::Spelling;
use crate::output::Output;

const MODULE: &str = "fastapi_sse_fast._fallback";

struct Refused {
    class: Py<PyType>,
    why: &'static str,
}

static REFUSED: PyOnceLock<Refused> = PyOnceLock::new();

/// Let [`jsonable`] refuse instances of `class`, with a message that says why. The message of
/// `jsonable_encoder` would only list what it has tried.
///
/// The class is set at import and not named here, because its module depends on this one.
pub(crate) fn refuse(class: &Bound<'_, PyType>, why: &'static str) {
    let refused = Refused {
        class: class.clone().unbind(),
        why,
    };
    let _ = REFUSED.set(class.py(), refused);
}

/// Return `jsonable_encoder(value)`.
///
/// # Errors
///
/// Whatever `jsonable_encoder` raises, or `TypeError` for a value of the refused class.
pub(crate) fn jsonable<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    static ENCODER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if let Some(refused) = REFUSED.get(value.py())
        && value.get_type().is(&refused.class)
    {
        let message = format!("{} {}", value.repr()?, refused.why);
        return Err(PyTypeError::new_err(message));
    }
    ENCODER
        .import(value.py(), MODULE, "jsonable_encoder")?
        .call1((value,))
}

/// Return the message for an event that another response takes for data or for a part of the body.
///
/// # Errors
///
/// Only those of importing the Python module.
pub(crate) fn misplaced_event(event: &Bound<'_, PyAny>) -> PyResult<String> {
    let module = event.py().import(MODULE)?;
    module.call_method1("what_to_do_with", (event,))?.extract()
}

/// Append `json.dumps(value)` to `out` in the given spelling, except for floats: they stay spelled
/// as in Python.
///
/// # Errors
///
/// Whatever `json.dumps` raises.
pub(crate) fn dump_json(
    value: &Bound<'_, PyAny>,
    spelling: Spelling,
    out: &mut Output,
) -> PyResult<()> {
    static DUMP_JSON: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static DUMP_COMPACT_JSON: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    let dump = match spelling {
        Spelling::Fastapi => DUMP_JSON.import(py, MODULE, "dump_json"),
        Spelling::Compact => DUMP_COMPACT_JSON.import(py, MODULE, "dump_compact_json"),
    };
    let json = dump?.call1((value,))?;
    out.extend_from_slice(json.cast::<PyString>()?.to_str()?.as_bytes());
    Ok(())
}

/// Return FastAPI's own `ServerSentEvent(**fields)`, which validates and coerces the fields.
///
/// # Errors
///
/// pydantic's `ValidationError`.
pub(crate) fn validated_event<'py>(fields: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
    static EVENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    EVENT
        .import(fields.py(), MODULE, "ValidatedEvent")?
        .call((), Some(fields))
}
