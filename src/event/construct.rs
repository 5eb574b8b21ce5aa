//! The fast constructor of `ServerSentEvent`: it sets fields that need no coercion exactly as
//! pydantic would. It does not validate; that stays with pydantic.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::fields::Fields;
use crate::pydantic::Setters;

/// Fill a new `ServerSentEvent` from its keyword arguments if each of them is exactly what pydantic
/// would store. Otherwise return `false` and change nothing: then pydantic has to validate.
///
/// # Errors
///
/// None that the arguments can cause.
#[pyfunction]
#[pyo3(signature = (event, fields, /))]
pub(crate) fn fill_event<'py>(
    event: &Bound<'py, PyAny>,
    fields: &Bound<'py, PyDict>,
) -> PyResult<bool> {
    let Some(setters) = Setters::of(event.py())? else {
        return Ok(false);
    };
    match Fields::of_dict(fields)? {
        Some(values) if values.is_valid() => setters.fill(event, fields),
        _ => Ok(false),
    }
}
