//! The slow and exact ways, all of them FastAPI's own code, reached through
//! `fastapi_sse_fast._fallback`.

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

/// Have instances of `class` refused in words of its own: `jsonable_encoder` would only say what
/// it has tried. The class is given at import, since its module is built on this one.
pub(crate) fn refuse(class: &Bound<'_, PyType>, why: &'static str) {
    let refused = Refused {
        class: class.clone().unbind(),
        why,
    };
    let _ = REFUSED.set(class.py(), refused);
}

/// What `jsonable_encoder(value)` returns.
///
/// # Errors
///
/// Whatever it raises, or that the value is refused.
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

/// What to do where an event is taken for data, or for a part of a body.
///
/// # Errors
///
/// The module cannot be imported.
pub(crate) fn not_a_part(event: &Bound<'_, PyAny>) -> PyResult<String> {
    let module = event.py().import(MODULE)?;
    module.call_method1("what_to_do_with", (event,))?.extract()
}

/// Append `json.dumps(value)` to `out`, in this spelling but for floats, which stay Python's.
///
/// # Errors
///
/// What `json.dumps` raises.
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

/// An event that FastAPI's own `ServerSentEvent(**fields)` has checked and coerced.
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
