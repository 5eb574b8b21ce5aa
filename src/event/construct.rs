//! The fast constructor of `ServerSentEvent`: fields that need no coercion are set as pydantic
//! would set them.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::fields::Fields;
use crate::pydantic::Setters;

/// Fill a new `ServerSentEvent` from its keyword arguments, where each is exactly what pydantic
/// would store. Return whether it was: if not, nothing was touched and pydantic must decide.
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
